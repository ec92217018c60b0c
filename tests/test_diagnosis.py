import numpy as np
import pytest
from rich.console import Console

from beexformer.model.config import BEEConfig
from beexformer.model.options import ExitOptions, ExitSettings
from beexformer.training import diagnosis, pictures, terminal_tables
from beexformer.training.evaluate import METRICS, evaluate_logits

LABELS, PREDICTED = np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 1, 0])


def test_classes_are_scored_by_the_book() -> None:
    first, second, third = diagnosis.by_class(LABELS, PREDICTED, 4)[:3]
    assert first == {"rows": 3, "precision": 2 / 3, "recall": 2 / 3, "f1": pytest.approx(2 / 3)}
    assert second == {"rows": 2, "precision": 2 / 3, "recall": 1.0, "f1": pytest.approx(0.8)}
    assert third == {"rows": 1, "precision": 0.0, "recall": 0.0, "f1": 0.0}
    matrix = diagnosis.confusion(LABELS, PREDICTED, 4)
    assert matrix == [[2, 1, 0, 0], [0, 2, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    assert diagnosis.confused_pairs(matrix, ["a", "b", "c", "d"]) == [("a", "b", 1), ("c", "a", 1)]


@pytest.mark.slow
def test_intervals_hold_their_score_and_narrow_with_rows() -> None:
    rng = np.random.default_rng(0)
    for metric in ("accuracy", "macro_f1"):
        widths = []
        for count in (50, 800):
            labels = rng.integers(0, 2, count)
            predicted = np.where(rng.random(count) < 0.8, labels, 1 - labels)
            low, high = diagnosis.interval(labels, predicted, METRICS[metric], metric == "accuracy")
            assert low < METRICS[metric](labels, predicted) < high
            widths.append(high - low)
        assert widths[1] < widths[0] / 2
    assert diagnosis.interval(np.ones(10), np.ones(10), METRICS["accuracy"], True)[0] == pytest.approx(0.722, abs=1e-3)


def test_texts_that_are_surely_wrong_come_first() -> None:
    logits = np.array([[3.0, 0.0], [0.0, 1.0], [0.0, 5.0], [2.0, 0.0]])
    wrong = diagnosis.surely_wrong(["a", "b", ("c", "d"), "e"], logits, np.array([0, 0, 0, 1]), ["no", "yes"])
    assert [(each["text"], each["label"], each["predicted"]) for each in wrong] == [
        ("c | d", "no", "yes"),
        ("e", "yes", "no"),
        ("b", "no", "yes"),
    ]
    assert wrong[0]["score"] == pytest.approx(1 / (1 + np.exp(-5)))


def evaluation(classes: int = 3, rows: int = 60, spoiled: bool = False) -> dict:
    """Of a network whose exits are all right; `spoiled`: but the last ones, which are right by chance."""
    config = BEEConfig(vocab_size=100, n_class=classes)
    rng = np.random.default_rng(0)
    labels = np.arange(rows) % classes
    logits = 4 * np.eye(classes)[labels][:, None] * np.ones((1, config.n_block, 1)) + rng.normal(
        0, 0.1, (rows, config.n_block, classes)
    )
    if spoiled:
        logits[:, 3:] = rng.normal(0, 1, logits[:, 3:].shape)
    return evaluate_logits(
        config, logits, np.full(rows, 9), labels, "accuracy", ExitSettings(-1.0, 0.0, 1, config.n_block)
    )


def test_a_shallower_exit_that_is_better_is_said() -> None:
    said = diagnosis.advice(evaluation(spoiled=True))
    assert "leaving after block 1 always is better than full depth" in said[0]
    assert "--min-blocks 1 --max-blocks 1" in said[0]
    assert diagnosis.advice(evaluation())[-1].startswith("on other rows like these accuracy lies between 0.9")


def test_options_are_recommended_where_they_save_and_lose_nothing() -> None:
    result = diagnosis.recommended(evaluation())
    assert result is not None
    options, point = result
    assert point["score"] == 1.0
    assert point["flops_saved_ratio"] > 0.7
    assert options != ExitOptions()
    flat = evaluation()
    flat |= {"flops_saved_ratio": 1.0}
    assert diagnosis.recommended(flat) is None, "the defaults are as good"


@pytest.mark.slow
@pytest.mark.parametrize("classes", [3, 77])
def test_classes_stay_readable_on_a_terminal_and_as_a_picture(classes: int, tmp_path) -> None:  # type: ignore[no-untyped-def]
    names = [f"[a] class with a name that is rather long {i}" for i in range(classes)]
    result = evaluation(classes, 5 * classes)
    result["surely_wrong"] = [{"text": "t" * 999, "label": names[0], "predicted": names[1], "score": 0.99}]
    console = Console(width=100, record=True, file=(tmp_path / "out").open("w"))
    with console.file:
        console.print(terminal_tables.class_tables(names, result))
    text = console.export_text()
    assert max(map(len, text.splitlines())) <= 100
    assert len(text.splitlines()) < 80
    assert "[a] class" in text, "names are no markup"
    pictures.confusion("model", names, result, tmp_path / "confusion.png")
    assert (tmp_path / "confusion.png").stat().st_size > 10_000
