"""Running text with soft labels: what a passage is told, and what stays out."""

from pathlib import Path

import numpy as np
import pytest

from beexformer.model.errors import TrainingError
from beexformer.model.tokenizer import Tokenizer
from beexformer.training import passages
from beexformer.training.data import Rows, cut
from beexformer.training.recipe import Data, Passages

SHIPPED = Path(__file__).parent.parent / "model" / "checkpoints" / "sst2" / "tokenizer.json"
WORDS = ["the", "film", "was", "long", "and", "the", "people", "in", "it", "were", "kind", "to", "each", "other"]


def sentence(i: int, k: int) -> str:
    return f"Document {i} says {k} " + " ".join(WORDS[: 6 + k % 8]) + "."


@pytest.fixture
def tokenizer() -> Tokenizer:
    return Tokenizer(SHIPPED.read_text(), 512)


@pytest.fixture
def documents(tmp_path: Path) -> list[str]:
    result = [" ".join(sentence(i, k) for k in range(30)) for i in range(20)]
    (tmp_path / "reviews.txt").write_text("\n".join(result))
    return result


def labelled(documents: list[str]) -> Rows:
    """A soft label for each sentence: the chance of class 1 is 0.9 in even documents, 0.2 in odd ones."""
    texts = [s for document in documents for s in cut(document)]
    high = np.array([0.9 if int(text.split()[1]) % 2 == 0 else 0.2 for text in texts], np.float32)
    soft = np.stack([1 - high, high], 1)
    return Rows(texts, None, soft.argmax(1), soft, np.zeros(len(texts), bool))


def plan(**changes: int) -> Data:
    return Data(train="rows.csv", passages=Passages(**{"file": "reviews.txt", "rows": 8, **changes}))


def test_a_passage_is_what_stands_there_with_the_mean_label_of_its_sentences(
    tmp_path: Path, documents: list[str], tokenizer: Tokenizer
) -> None:
    rows = labelled(documents)
    result = passages.add(plan(), tmp_path, rows, tokenizer)
    assert len(result) == len(rows) + 8
    assert result.texts[: len(rows)] == rows.texts
    assert result.stated is not None
    assert not result.stated[len(rows) :].any()
    assert result.soft is not None
    for text, soft in zip(result.texts[len(rows) :], result.soft[len(rows) :], strict=True):
        [source] = [document for document in documents if text in document]
        high = 0.9 if int(source.split()[1]) % 2 == 0 else 0.2
        assert soft == pytest.approx([1 - high, high], abs=1e-5)
        assert passages.SHORTEST <= len(tokenizer.encode(text, truncate=False).ids) <= 512


def test_a_passage_of_sentences_that_few_know_is_not_taken(
    tmp_path: Path, documents: list[str], tokenizer: Tokenizer
) -> None:
    rows = labelled(documents)
    few = rows.take(np.flatnonzero(np.arange(len(rows)) % 2 == 0))
    with pytest.raises(TrainingError, match=r"has \d passages .*set data\.passages\.rows to that"):
        passages.add(plan(rows=20), tmp_path, few, tokenizer)


def test_paragraphs_that_are_held_out_are_read_in_no_form(
    tmp_path: Path, documents: list[str], tokenizer: Tokenizer
) -> None:
    rows = labelled(documents)
    result = passages.add(plan(held_out=12), tmp_path, rows, tokenizer)
    read = {text.split()[1] for text in result.texts}
    assert len(read) == 8
    again = passages.add(plan(held_out=12), tmp_path, rows, tokenizer)
    assert again.texts == result.texts


def test_rows_without_passages_stay_what_they_are(tmp_path: Path, documents: list[str], tokenizer: Tokenizer) -> None:
    rows = labelled(documents)
    assert passages.add(Data(train="rows.csv"), tmp_path, rows, tokenizer) is rows
    hard = Rows(rows.texts, None, rows.labels)
    with pytest.raises(TrainingError, match="soft labels"):
        passages.add(plan(), tmp_path, hard, tokenizer)
