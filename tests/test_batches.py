import numpy as np

from beexformer.training.batches import length_batches, pad


def test_batches_hold_every_row_once_and_waste_little() -> None:
    rng = np.random.default_rng(0)
    lengths = rng.integers(3, 60, 5000)
    batches = length_batches(lengths, 32, np.random.default_rng(1))
    assert sorted(np.concatenate(batches).tolist()) == list(range(5000))
    padded = sum(len(batch) * lengths[batch].max() for batch in batches)
    assert padded / lengths.sum() < 1.05
    again = length_batches(lengths, 32, np.random.default_rng(1))
    assert all((a == b).all() for a, b in zip(batches, again, strict=True))


def test_two_epochs_see_other_batches() -> None:
    lengths = np.full(640, 7)
    one, two = (length_batches(lengths, 32, np.random.default_rng([1, epoch])) for epoch in (0, 1))
    members = {frozenset(batch.tolist()) for batch in one}
    assert len(members) == 20
    assert not members & {frozenset(batch.tolist()) for batch in two}


def test_pad_is_algorithm_1() -> None:
    ids, mask = pad([[5, 6, 7], [8]])
    assert ids.tolist() == [[5, 6, 7], [8, 0, 0]]
    assert mask.tolist() == [[True, True, True], [True, False, False]]
