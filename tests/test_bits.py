from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from beexformer.model import bits

Arrange = Callable[[np.ndarray], np.ndarray]


@given(
    arrays(
        np.float32, st.tuples(st.integers(1, 4), st.sampled_from([64, 128, 192])), elements=st.floats(-2, 2, width=32)
    )
)
def test_unpack_gives_back_the_signs(x: np.ndarray) -> None:
    assert (bits.unpack(bits.pack(x)) == np.where(x < 0, -1, 1)).all()


def test_zero_is_plus_one_and_minus_zero_too() -> None:
    assert (bits.unpack(bits.pack(np.array([0.0, -0.0] * 32))) == 1).all()


def test_the_first_sign_is_the_lowest_bit() -> None:
    x = np.ones(128)
    x[0] = x[65] = -1
    assert bits.pack(x).tolist() == [1, 2]


def test_signs_that_fill_no_word_are_refused() -> None:
    with pytest.raises(ValueError, match="65 signs"):
        bits.pack(np.ones(65))


@pytest.mark.parametrize(("m", "n", "k"), [(1, 1, 64), (3, 5, 128), (10, 65, 192), (2, 512, 768)])
def test_dot_is_the_dot_product_of_signs(m: int, n: int, k: int) -> None:
    rng = np.random.default_rng(k)
    a, w = rng.normal(size=(m, k)), rng.normal(size=(n, k))
    packed = bits.dot(bits.pack(a), bits.pack_weights(w))
    assert (packed == np.where(a < 0, -1, 1) @ np.where(w < 0, -1, 1).T).all()
    assert (bits.unpack_weights(bits.pack_weights(w)) == np.where(w < 0, -1, 1)).all()


@pytest.mark.parametrize("n", [1, 16, 40, 64, 130])
@pytest.mark.parametrize(
    ("tile", "untile"), [(bits.tile, bits.untile), (bits.tile_octets, bits.untile_octets)], ids=["words", "octets"]
)
def test_tiles_hold_every_word_and_pad_with_zeros(tile: Arrange, untile: Arrange, n: int) -> None:
    words = np.random.default_rng(n).integers(0, 2**64, (3, n), dtype=np.uint64)
    tiles = tile(words)
    assert tiles.shape == (4 * -(-n // bits.GROUP), 3, bits.TILE)
    assert (untile(tiles)[:, :n] == words).all()
    assert not untile(tiles)[:, n:].any()


def test_octets_of_64_outputs_lie_together() -> None:
    words = np.zeros((2, 128), np.uint64)
    words[1, 64 + 5] = np.uint64(0xAB) << np.uint64(8 * 3)  # output 5 of the second 64, octet 3 of the second word
    octets = bits.tile_octets(words).view(np.uint8).reshape(2, 16, 64)
    assert octets[1, 8 + 3, 5] == 0xAB
    assert np.count_nonzero(octets) == 1
