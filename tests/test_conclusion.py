from pathlib import Path

import numpy as np
from rich.console import Console
from test_diagnosis import evaluation

from beexformer.training.conclusion import compared, conclude
from beexformer.training.data import Rows

LABELS = ["bill", "box", "bug"]
TRAIN = Rows([f"{('tax', 'parcel', 'crash')[i % 3]} {i}" for i in range(60)], None, np.arange(60) % 3)


def test_what_is_simpler_stands_beside_the_score() -> None:
    result = evaluation()
    [said] = compared(LABELS, TRAIN, TRAIN, result)
    assert "accuracy of 60 rows, each row by what was learned without it: this model 1.0000" in said
    assert "always saying 'bill' 0.3333" in said
    assert "TF-IDF with logistic regression 1.0000" in said
    dev = TRAIN.take(np.arange(9))
    assert "9 rows, held-out rows" in compared(LABELS, TRAIN, dev, result)[0]


def test_a_network_that_is_beaten_says_so() -> None:
    assert "no better than the largest class" in compared(LABELS, TRAIN, TRAIN, evaluation() | {"score": 0.2})[1]
    beaten = evaluation() | {"score": 0.6, "interval": (0.5, 0.7)}
    assert "TF-IDF is clearly better on these rows" in compared(LABELS, TRAIN, TRAIN, beaten)[1]


def test_the_end_says_what_to_do_next(tmp_path: Path) -> None:
    console = Console(width=100, record=True, file=(tmp_path / "out").open("w"))
    with console.file:
        said = compared(LABELS, TRAIN, TRAIN, evaluation())
        conclude(console, LABELS, said, {"dev": evaluation()}, tmp_path / "support")
    text = console.export_text()
    for words in ("precision", "lies between", "this model", f"beexformer serve --checkpoints {tmp_path}/support"):
        assert words in text
