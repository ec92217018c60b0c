"""ASCII text gets the same ids from the quick library; all other text never gets there."""

import json
from pathlib import Path

import numpy as np
import pytest
from tiny import random_texts

from beexformer.model import ascii_tokenizer, tokenizer
from beexformer.model.checkpoint import SHIPPED
from beexformer.model.tokenizer import Tokenizer, train_wordpiece

pytest.importorskip("tokie", reason="has no wheel for this platform")
ODD = [
    "[SEP] hi [CLS][MASK]",
    "[UNK]",
    "##ing ##s",
    "isn't, it's; $5.00 #a @b",
    "x" * 150,
    "\t a\n\r b ",
    "A\x00b\x1bc\x7fd",
]


@pytest.fixture(scope="module")
def vocabulary() -> str:
    shipped = sorted(SHIPPED.glob("*/tokenizer.json"))
    return Path(shipped[0]).read_text(encoding="utf-8") if shipped else train_wordpiece(random_texts(50), 200)


def slow(quick: Tokenizer, *row: str) -> tuple[list[int], bool]:
    encoding = quick.inner.encode_batch_fast([row if len(row) == 2 else row[0]])[0]
    return encoding.ids, bool(encoding.overflowing)


def random_ascii(seed: int) -> str:
    rng = np.random.default_rng(seed)
    return "a" + "".join(map(chr, rng.choice([*range(128)] + [32] * 30 + [*range(97, 123)] * 8, rng.integers(1, 300))))


def test_ids_are_those_of_tokenizers(vocabulary: str) -> None:
    quick = Tokenizer(vocabulary, 32)
    assert quick._ascii
    texts = [*ODD, *random_texts(100), *map(random_ascii, range(300))]
    for text in texts:
        result = quick.encode(text)
        assert (result.ids.tolist(), result.truncated) == slow(quick, text), text
    for text, pair in zip(texts, reversed(texts), strict=True):
        result = quick.encode(text, pair)
        assert (result.ids.tolist(), result.truncated) == slow(quick, text, pair), (text, pair)


def test_what_may_differ_is_left_to_tokenizers(vocabulary: str) -> None:
    quick = Tokenizer(vocabulary, 32)._ascii
    assert quick
    assert quick.ids("a caf\u00e9", None) is quick.ids("a", "caf\u00e9") is quick.ids("a\x7f", None) is None
    assert quick.ids("a " * ascii_tokenizer.LONGEST, None) is None
    assert quick.ids("a cafe", None)


@pytest.mark.parametrize(
    "changed",
    [
        {"normalizer": None},
        {"pre_tokenizer": {"type": "Whitespace"}},
        {"added_tokens": [{"id": 5, "content": "film", "special": False}]},
    ],
)
def test_other_pipelines_are_left_to_tokenizers(vocabulary: str, changed: dict[str, object]) -> None:
    assert ascii_tokenizer.of(json.dumps(json.loads(vocabulary) | changed), None) is None


def test_where_the_two_disagree_tokenizers_has_its_way(vocabulary: str) -> None:
    described = json.loads(vocabulary)
    ids = described["model"]["vocab"]
    ids["the"], ids["a"] = ids["a"], ids["the"]
    assert ascii_tokenizer.of(json.dumps(described), Tokenizer(vocabulary, 128).inner) is None


def test_models_of_one_vocabulary_share_its_tokenizer(vocabulary: str) -> None:
    one = tokenizer.shared(vocabulary, 128)
    assert tokenizer.shared(vocabulary, 128) is one
    assert tokenizer.shared(vocabulary, 64) is not one
