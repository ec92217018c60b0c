"""The baselines are as strong as they are said to be, and learn from training rows alone."""

from pathlib import Path

import numpy as np
import pytest
from test_teacher import random_encoder
from tiny import random_texts
from tiny_backbone import write_backbone

from beexformer.model.errors import TrainingError
from beexformer.report import baselines, vectors
from beexformer.training.data import Rows


def quiet(done: int, total: int, postfix: str) -> None:
    assert 0 <= done <= total


def rows(texts: list[str], word: str = "worst") -> Rows:
    return Rows(texts, None, np.array([int(word in text.split()) for text in texts]))


def test_the_majority_is_that_of_training() -> None:
    train, dev = Rows(["a"] * 5, None, np.array([2, 2, 1, 0, 2])), Rows(["b"] * 3, None, np.array([1, 1, 1]))
    assert baselines.majority(train, dev).tolist() == [2, 2, 2]


def test_a_word_is_found() -> None:
    train, dev = rows(random_texts(300, longest=12)), rows(random_texts(60, seed=1, longest=12))
    result = baselines.lexical(train, [dev], "accuracy", quiet)
    assert (result.predicted[0] == dev.labels).mean() > 0.9
    assert result.strength in baselines.STRENGTHS
    vocabulary = baselines.Words(train).inner.vocabulary_
    assert result.size_bytes > 8 * len(vocabulary), "an inverse document frequency and a weight for each"


def test_rounding_does_not_choose_the_baseline() -> None:
    assert baselines.strongest([0.80, 0.90, 0.91950, 0.91952]) == 10
    assert baselines.strongest([0.80, 0.90, 0.91952, 0.91950]) == 10
    assert baselines.strongest([0.80, 0.90, 0.91, 0.92]) == 100


def test_pairs_are_compared() -> None:
    """Whether two texts are the same can't be seen in either."""
    rng = np.random.default_rng(0)
    texts = random_texts(600, longest=6)
    labels = rng.integers(0, 2, 600)
    pairs = [text if label else texts[rng.integers(600)] for text, label in zip(texts, labels, strict=True)]
    every = Rows(texts, pairs, labels)
    train, dev = every.take(np.arange(450)), every.take(np.arange(450, 600))
    [result] = baselines.lexical(train, [dev], "f1", quiet).predicted
    assert (result == dev.labels).mean() > 0.85
    words = baselines.Words(train)
    assert words(dev).shape == (150, 4 * len(words.inner.vocabulary_))


def test_the_choice_of_c_and_the_vocabulary_see_no_development_row() -> None:
    train = rows(random_texts(90, longest=8))
    one, other = rows(["unseen words film worst"] * 9), rows(["a film"] * 9)
    both, alone = (baselines.lexical(train, each, "accuracy", quiet) for each in ([one, other], [other]))
    assert (both.predicted[1].tolist(), both.strength) == (alone.predicted[0].tolist(), alone.strength)


def test_an_encoder_that_is_not_installed_is_an_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(baselines.locate.__globals__, "PACKAGES", {"minilm": ["no-such-package-of-weights"]})
    with pytest.raises(TrainingError, match="not installed"):
        baselines.encoder(rows(["a", "b"]), [], 2, tmp_path, quiet)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_encoder(tmp_path_factory.mktemp("encoder"))


def test_an_encoder_is_tuned_once_for_the_same_rows(
    encoder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(baselines, "locate", lambda name, cache: encoder)
    train, dev = rows(random_texts(40, longest=8)), rows(random_texts(10, seed=1, longest=8))
    steps: list[tuple[int, int]] = []

    def report(done: int, total: int, postfix: str) -> None:
        steps.append((done, total))

    [first] = baselines.encoder(train, [dev], 2, tmp_path, report).predicted
    assert first.shape == (10,)
    assert (6, 6) in steps, "three epochs of two batches"
    steps.clear()
    [again] = baselines.encoder(train, [dev], 2, tmp_path, report).predicted
    assert (again == first).all()
    assert steps == [(10, 10)], "nothing is trained, answers are read"
    baselines.encoder(dev, [train], 2, tmp_path, report)
    assert len([folder for folder in tmp_path.iterdir() if folder.name.startswith("minilm-")]) == 2


@pytest.mark.parametrize("kind", [vectors.MiniLM, vectors.Model2Vec])
def test_frozen_vectors_say_whether_a_word_is_there(
    kind: type[vectors.MiniLM] | type[vectors.Model2Vec],
    encoder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    if kind is vectors.Model2Vec:
        pytest.importorskip("model2vec", reason="model2vec is not installed; pip install 'beexformer[bench]'")
    monkeypatch.setattr(vectors, "locate", lambda name, cache: encoder)
    train, dev = rows(random_texts(300, longest=6)), rows(random_texts(60, seed=1, longest=6))
    result = kind(tmp_path)
    assert np.linalg.norm(result(dev.texts), axis=1) == pytest.approx(1, abs=1e-3)
    answered = baselines.on_vectors(result, train, [dev], "accuracy", quiet)
    assert (answered.predicted[0] == dev.labels).mean() > 0.8, kind
    assert answered.size_bytes > result.size_bytes > 0


def test_a_text_has_its_vector_wherever_it_stands(
    encoder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(vectors, "locate", lambda name, cache: encoder)
    texts = random_texts(20, longest=9)
    pairs = Rows(texts, texts[::-1], np.zeros(20, int))
    result = vectors.MiniLM(tmp_path)
    [single], [both] = (vectors.features(result, [part], quiet) for part in (Rows(texts, None, pairs.labels), pairs))
    a, b, apart, product = np.split(both, 4, 1)
    assert a == pytest.approx(single, abs=1e-2), "padding and bfloat16"
    assert b == pytest.approx(single[::-1], abs=1e-2)
    assert (apart == np.abs(a - b)).all()
    assert (product == a * b).all()


def test_the_frozen_backbone_learns_a_word(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write_backbone(tmp_path, monkeypatch, readers=False)
    monkeypatch.setattr(baselines.backbone, "SHIPPED", tmp_path)
    train, dev = rows(random_texts(300, longest=6)), rows(random_texts(60, seed=1, longest=6))
    result = baselines.on_backbone(train, [dev], 2, quiet, "tiny")
    assert (result.predicted[0] == dev.labels).mean() > 0.8
