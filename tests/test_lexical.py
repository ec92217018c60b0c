import numpy as np
import pytest

from beexformer.training import lexical
from beexformer.training.data import Rows


def rows(count: int, seed: int = 0, pairs: bool = False) -> Rows:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    texts = [f"{'warm' if label else 'dull'} film {rng.integers(99)}" for label in labels]
    return Rows(texts, [f"so {text}" for text in texts] if pairs else None, labels)


@pytest.mark.parametrize("pairs", [False, True])
def test_words_that_tell_are_learned(pairs: bool) -> None:
    train, dev = rows(40, pairs=pairs), rows(10, 1, pairs)
    assert lexical.score(train, dev, "accuracy") == 1.0
    assert lexical.score(train, train, "accuracy") == 1.0


def test_cross_validation_answers_no_row_that_was_learned_from() -> None:
    labels = np.arange(40) % 2
    noise = Rows([f"word{i}" for i in range(40)], None, labels)
    result = lexical.score(noise, noise, "accuracy")
    assert result is not None
    assert result < 0.8, "rows that were learned would all be right"


def test_what_can_not_be_learned_has_no_score(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lexical.score(Rows(["!", "?"] * 3, None, np.array([0, 1] * 3)), rows(4), "accuracy") is None
    assert lexical.score(rows(3), rows(3), "accuracy") is not None, "three rows are enough to try"
    monkeypatch.setattr(lexical, "MOST", 10)
    assert lexical.score(rows(11), rows(3), "accuracy") is None
