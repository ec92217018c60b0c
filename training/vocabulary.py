"""
An encoder's vocabulary as networks read it: id 0 pads, a text is `[CLS] a [SEP]`, a pair `[CLS] a [SEP] b [SEP]`.

A BERT's is just that. MPNet's has BERT's words behind special tokens of its own; each of its words is found by its
string here, so a network takes no notice of which encoder it learned from. Knows no torch.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer, processors

from beexformer.model.errors import TrainingError
from beexformer.model.tokenizer import SPECIAL

STANDS_FOR = {"[PAD]": "<pad>", "[CLS]": "<s>", "[SEP]": "</s>", "[MASK]": "<mask>"}
"""A special token of ours -> MPNet's, which has ours among its words too, without having learned anything of them."""


@dataclass(frozen=True)
class Vocabulary:
    """A tokenizer as JSON, its ids of [CLS] and [SEP], and each id's row of the encoder's embedding, [V] int64."""

    tokenizer: str
    specials: tuple[int, int]
    rows: np.ndarray


def of(folder: Path) -> Vocabulary:
    """The vocabulary of the encoder in `folder`. Raises TrainingError where it is neither BERT's nor MPNet's."""
    text = (folder / "tokenizer.json").read_text(encoding="utf-8")
    described = json.loads(text)
    words: dict[str, int] = described["model"].get("vocab") or {}
    if not isinstance(words, dict) or not set(SPECIAL) <= set(words):
        raise TrainingError(f"the tokenizer of {folder.name} has no {', '.join(SPECIAL)}; take a BERT or an MPNet")
    if words["[PAD]"] == 0:
        return Vocabulary(text, (words["[CLS]"], words["[SEP]"]), np.arange(len(words)))
    if not set(STANDS_FOR.values()) <= set(words):
        raise TrainingError(f"the tokenizer of {folder.name} is neither a BERT's nor an MPNet's; take one of these")
    theirs = {*STANDS_FOR.values(), "<unk>"}
    kept = sorted((word for word in words if word not in theirs), key=lambda word: (word != "[PAD]", words[word]))
    ids = {word: i for i, word in enumerate(kept)}
    rows = np.array([words[STANDS_FOR.get(word, word)] for word in kept])
    return Vocabulary(_written(described, ids), (ids["[CLS]"], ids["[SEP]"]), rows)


def _written(described: dict[str, Any], ids: dict[str, int]) -> str:
    """MPNet's tokenizer with these ids in place of its own."""
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    changed = {
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": ids[token], "content": token, **flags} for token in SPECIAL],
        "post_processor": None,
        "model": {**described["model"], "vocab": ids, "unk_token": "[UNK]"},
    }
    tokenizer = Tokenizer.from_str(json.dumps({**described, **changed}))
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", ids["[CLS]"]), ("[SEP]", ids["[SEP]"])],
    )
    return str(tokenizer.to_str())
