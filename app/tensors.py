"""Answers as tensors of the Open Inference Protocol, and its binary form: little-endian, lengths before texts."""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from beexformer.model.answer import Answer

OUTPUTS: dict[str, tuple[str, Callable[[Answer], Any]]] = {
    "label": ("BYTES", lambda answer: answer.label),
    "score": ("FP64", lambda answer: answer.score),
    "scores": ("FP64", lambda answer: list(answer.scores.values())),
    "applies": ("BOOL", lambda answer: [label in (answer.labels or ()) for label in answer.scores]),
    "exit_index": ("INT32", lambda answer: answer.exit_index),
    "flops": ("FP64", lambda answer: answer.flops),
    "flops_full": ("FP64", lambda answer: answer.flops_full),
    "tokens": ("INT32", lambda answer: answer.tokens),
    "truncated": ("BOOL", lambda answer: answer.truncated),
    "unknown_ratio": ("FP64", lambda answer: answer.unknown_ratio or 0.0),
}
"""Datatype of each output, and where its rows come from."""
BY_LABEL = ("scores", "applies")
"""Those that have a number for each label of the model; the second is only there of several labels a text."""
NUMBERS = {"FP64": "<f8", "INT32": "<i4", "BOOL": "?"}


@dataclass(frozen=True)
class Tensor:
    """An output: its rows one after another."""

    datatype: str
    shape: list[int]
    data: list[Any]

    @classmethod
    def of(cls, name: str, answers: Sequence[Answer]) -> "Tensor":
        datatype, row = OUTPUTS[name]
        rows = [row(answer) for answer in answers]
        if name not in BY_LABEL:
            return cls(datatype, [len(rows)], rows)
        return cls(datatype, [len(rows), len(answers[0].scores)], [each for row in rows for each in row])

    def packed(self) -> bytes:
        if self.datatype == "BYTES":
            return pack_texts(self.data)
        return np.array(self.data, NUMBERS[self.datatype]).tobytes()


def outputs_of(multi_label: bool) -> dict[str, str]:
    """The outputs of a model by name, and their datatypes."""
    return {name: kind for name, (kind, _) in OUTPUTS.items() if multi_label or name != "applies"}


def pack_texts(texts: Sequence[str]) -> bytes:
    """Each as its length in bytes (uint32) and UTF-8."""
    return b"".join(struct.pack("<I", len(coded := text.encode())) + coded for text in texts)


def unpack_texts(content: bytes) -> list[str]:
    """The other way round. Raises ValueError."""
    texts, at = [], 0
    while at < len(content):
        end = at + 4 + (int.from_bytes(content[at : at + 4], "little") if at + 4 <= len(content) else len(content))
        if end > len(content):
            raise ValueError("its bytes end within a text; each is a length of 4 bytes, little-endian, and UTF-8")
        try:
            texts.append(content[at + 4 : end].decode())
        except UnicodeDecodeError as error:
            raise ValueError(f"text {len(texts)} is not UTF-8 at byte {error.start}") from None
        at = end
    return texts


def flat_texts(data: Sequence[Any]) -> list[str]:
    """The texts of `data`, flat or nested once. Raises ValueError."""
    texts = [text for row in data for text in (row if isinstance(row, list) else [row])]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("data must be texts")
    return texts


def count(shape: Sequence[int]) -> int:
    return prod(shape) if shape else 0
