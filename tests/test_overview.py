import re

import numpy as np
import pytest
from rich.console import Console

from beexformer.training.data import Rows
from beexformer.training.overview import Overview, duplicates, language_of


def overview(texts: list[str], labels: list[int], names: list[str], cut: int = 0) -> Overview:
    dev = Rows([f"held out {i}" for i in range(4)], None, np.array([0, 0, 0, 1]))
    return Overview(Rows(texts, None, np.array(labels)), dev, names, cut, 8)


def shown(result: Overview) -> str:
    console = Console(width=100, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        console.print(result.table())
    return console.export_text()


def test_what_an_owner_would_rather_know_now() -> None:
    texts = ["the film was good", "The film  was good", "dull", "dull", "long", "fine"]
    result = overview(texts, [0, 0, 1, 0, 1, 2], ["good", "bad", "rare", "none"], 2)
    notes = "\n".join(result.notes())
    assert "always saying 'good' would be right for 75.0% of the 4 held-out rows" in notes
    assert "fewer than 3 rows: 'rare', 'none'" in notes
    assert "no row to learn from: 'none'" in notes
    assert "2 rows repeat the text of another" in notes
    assert "1 texts stand there with different labels" in notes
    assert "2 of 6 texts have more than 8 tokens" in notes
    assert "look like" not in notes
    text = shown(result)
    assert "6 rows to learn from, 4 held out, 4 classes" in text
    assert re.search(r"good\s+│\s+6 │\s+3 │", text)


def test_many_classes_stay_readable() -> None:
    names = [f"intent_with_a_long_name_{i}" for i in range(77)]
    text = shown(overview([f"row {i}" for i in range(154)], [i % 77 for i in range(154)], names))
    assert all(f"_{i} " in text for i in range(77))
    assert len(text.splitlines()) < 45


def test_duplicates_ignore_case_and_blanks_and_know_pairs() -> None:
    assert duplicates(["a b", "A  b", "c"], np.array([0, 0, 1])) == (1, 0)
    assert duplicates([("a", "b"), ("a", "c"), ("a", "b")], np.array([0, 0, 1])) == (1, 1)


@pytest.mark.parametrize(
    ("text", "language"),
    [
        ("the film was good and it is a joy to see that they have made it for us", None),
        ("reset password", None),
        ("card payment declined visa pin", None),
        ("der Film ist nicht gut und die Handlung wird mit der Zeit auch nicht besser", "German"),
        ("le film est bon et les acteurs sont dans une histoire qui ne plaît pas", "French"),
        ("la película es muy buena y los actores lo hacen muy bien con una historia", "Spanish"),
        ("это очень хороший фильм", "no Latin script"),
        ("这部电影很好", "no Latin script"),
        ("123 456", None),
    ],
)
def test_what_is_plainly_not_english_is_said(text: str, language: str | None) -> None:
    assert language_of([text] * 20) == language
    assert language_of([(text, text)] * 20) == language
