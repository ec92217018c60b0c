"""
Where training runs and in which types. The same code runs on a CPU and on a CUDA device; only speed differs.
"""

import torch

from beexformer.training import precision


def choose(name: str = "auto") -> torch.device:
    """ "auto": a CUDA device where there is one, the CPU elsewhere; or a device by torch's name of it."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(name)
    if device.type == "cuda":
        torch.backends.cuda.enable_cudnn_sdp(False)  # it makes a plan for each shape, slowly
    return device


def products(device: torch.device) -> torch.dtype:
    """The type of matrix products: bfloat16 on a CUDA device, on a CPU whichever is faster there."""
    return torch.bfloat16 if device.type == "cuda" else precision.faster()


def describe(device: torch.device) -> str:
    """What it is, for provenance."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
