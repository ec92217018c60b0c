"""Training: what learns, in torch (extra [train]). Knows nothing of the service."""
