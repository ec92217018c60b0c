"""
Whether a checkpoint is signed by somebody who is trusted: minisign signatures (Ed25519 over BLAKE2b), by `cryptography`
(extra [sign]). Digests say that a folder is whole; only a signature says who made it.

    minisign -G                                   make a pair of keys, once
    minisign -Sm sst2/config.json                 sign: config.json has the digests of all other files
    minisign -Vm sst2/config.json -P RWQ...       verify by hand

Format: https://jedisct1.github.io/minisign/ (both kinds of signature, of the file and of its BLAKE2b-512).
"""

import base64
import binascii
import hashlib
from pathlib import Path

from beexformer.model.errors import BEEError, CheckpointError

SUFFIX = ".minisig"
KEY_BYTES = 2 + 8 + 32  # kind, number, Ed25519 public key
SIGNATURE_BYTES = 2 + 8 + 64


def public_key(text: str) -> bytes:
    """The bytes of a minisign public key: a line of base64, or the file of two lines. Raises ValueError."""
    lines = [line for line in text.strip().splitlines() if not line.startswith("untrusted comment:")]
    try:
        [line] = lines
        key = base64.b64decode(line, validate=True)
    except (ValueError, binascii.Error):
        key = b""
    if len(key) != KEY_BYTES or key[:2] != b"Ed":
        raise ValueError(
            "it is no public key of minisign, as in RWQf6LRCGA9i53mlYecO4IzT51TGPpvWucNSCh1CBM0QTaLn73Y7GFO3"
        )
    return key


def verify(path: Path, content: bytes, trusted_key: str) -> None:
    """See that `content`, of the file `path`, is signed in the file beside it. Raises CheckpointError where it isn't,
    ValueError for a key that is none."""
    try:
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    except ImportError:
        raise BEEError("verifying signatures needs the extra [sign]: pip install 'beexformer[sign]'") from None
    key, beside = public_key(trusted_key), path.with_name(path.name + SUFFIX)
    try:
        untrusted, first, trusted, second = beside.read_text().splitlines()
        signature, comment = base64.b64decode(first, validate=True), trusted.removeprefix("trusted comment: ")
        sealed = base64.b64decode(second, validate=True)
    except OSError:
        raise CheckpointError(
            f"{path} has no signature {beside.name} beside it, and only signed checkpoints are trusted here; sign it "
            f"with `minisign -Sm {path}`, or fetch the signature too"
        ) from None
    except ValueError:  # also of Unicode and of base64
        raise CheckpointError(f"{beside} is no signature of minisign; fetch it again") from None
    kind, number = signature[:2], signature[2:10]
    if (
        len(signature) != SIGNATURE_BYTES
        or kind not in (b"Ed", b"ED")
        or not untrusted.startswith("untrusted comment:")
    ):
        raise CheckpointError(f"{beside} is no signature of minisign; fetch it again")
    if number != key[2:10]:
        raise CheckpointError(
            f"{path} is signed with key {number[::-1].hex().upper()}; the trusted one is {key[9:1:-1].hex().upper()}"
        )
    signer = Ed25519PublicKey.from_public_bytes(key[10:])
    try:
        signer.verify(signature[10:], hashlib.blake2b(content).digest() if kind == b"ED" else content)
        signer.verify(sealed, signature[10:] + comment.encode())
    except InvalidSignature:
        raise CheckpointError(f"{path} is not what was signed in {beside.name}; fetch the folder again") from None
