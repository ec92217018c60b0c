"""
Signs as bits. The one place that says what a bit means.

- bit 0 is +1, bit 1 is -1, and zero counts as +1 (x < 0 sets the bit), as eq. 7 says
- a row of k signs is k/64 uint64 words, first sign in the lowest bit of the first word
- weights of n outputs are packed as [k/64, n]: word-major, so that a loop over outputs reads memory in order
- for two packed rows of true length k:  dot(a, b) = k - 2 * popcount(a ^ b)
"""

import numpy as np

WORD = 64
TILE = 16  # outputs that lie side by side
GROUP = 64  # a layer's outputs are padded to a multiple of these


def pack(x: np.ndarray) -> np.ndarray:
    """Signs of real numbers [..., k] -> words [..., k/64] uint64. Raises ValueError if k is no multiple of 64."""
    if x.shape[-1] % WORD:
        raise ValueError(f"{x.shape[-1]} signs don't fill words of {WORD}")
    octets = np.packbits(np.asarray(x) < 0, axis=-1, bitorder="little")
    return np.ascontiguousarray(octets).view("<u8").astype(np.uint64)


def unpack(words: np.ndarray) -> np.ndarray:
    """Words [..., w] uint64 -> signs [..., 64 w] int8, -1 or +1."""
    octets = np.ascontiguousarray(words, dtype="<u8").view(np.uint8)
    ones: np.ndarray = np.unpackbits(octets, axis=-1, bitorder="little").astype(np.int8)
    return 1 - 2 * ones


def pack_weights(weights: np.ndarray) -> np.ndarray:
    """Real latent weights [n, k] -> their signs as words [k/64, n] uint64."""
    return np.ascontiguousarray(pack(weights).T)


def unpack_weights(words: np.ndarray) -> np.ndarray:
    """Words [k/64, n] uint64 -> signs [n, k] int8."""
    return unpack(np.ascontiguousarray(words.T))


def dot(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Packed rows [m, w] and packed weights [w, n] -> dot products of their signs [m, n] int32."""
    differ: np.ndarray = np.bitwise_count(a[:, :, None] ^ b[None, :, :]).sum(1, dtype=np.int32)
    product: np.ndarray = np.int32(a.shape[1] * WORD) - 2 * differ
    return product


def tile(words: np.ndarray) -> np.ndarray:
    """Packed weights [w, n] -> [n'/16, w, 16], n' being n padded with zeros to a multiple of 64: what a product over 16
    outputs reads lies together."""
    return np.ascontiguousarray(_padded(words).reshape(len(words), -1, TILE).transpose(1, 0, 2))


def untile(tiles: np.ndarray) -> np.ndarray:
    """[n'/16, w, 16] -> packed weights [w, n'], padding included."""
    return np.ascontiguousarray(tiles.transpose(1, 0, 2)).reshape(tiles.shape[1], -1)


def tile_octets(words: np.ndarray) -> np.ndarray:
    """The same shape for a product over 64 outputs that reads eight signs of each at a time: of every 64 outputs first
    the first octet of each, then the second."""
    w = len(words)
    octets = _padded(words).astype("<u8").view(np.uint8).reshape(w, -1, GROUP, 8)
    return np.ascontiguousarray(octets.transpose(1, 0, 3, 2)).view("<u8").astype(np.uint64).reshape(-1, w, TILE)


def untile_octets(tiles: np.ndarray) -> np.ndarray:
    """What `tile_octets` made -> packed weights [w, n'], padding included."""
    w = tiles.shape[1]
    octets = tiles.astype("<u8").view(np.uint8).reshape(-1, w, 8, GROUP)
    return np.ascontiguousarray(octets.transpose(1, 0, 3, 2)).view("<u8").astype(np.uint64).reshape(w, -1)


def _padded(words: np.ndarray) -> np.ndarray:
    return np.pad(words, ((0, 0), (0, -words.shape[1] % GROUP)))
