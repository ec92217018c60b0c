"""
What a BEExformer is, in one frozen description that training, file format and engine share.
"""

import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal, get_args

DEFAULT_DELTA = 1e-4  # Table 1
START_SCALE, START_TOKENS = 3.0, 32
"""Of the start-weighted mean: token i of the first 32 weighs exp(-i / 3). Of 2, 3 and 5, by cross-validation on TREC's
questions (docs/log.md, 2026-11-27); what came after the 32nd would weigh less than 3e-5."""
MOST_SIGNS = 65_535  # that an output may sum: kernels count them in 16 bits
LARGEST = {
    "vocab_size": 1_000_000,
    "n_class": 10_000,
    "d_model": 4_096,
    "n_block": 64,
    "n_head": 4_096,
    "d_head": MOST_SIGNS,
    "head_thresholds": 1_023,
    "max_tokens": 512,
}
"""Field -> what is far beyond any network that makes sense; a file that states more is refused before it is read."""
LEAST = {"n_class": 2, "max_tokens": 3}  # two special tokens and a word; of all others 1
Pooling = Literal["mean", "mean_and_start"]
Attention = Literal["real", "int8"]
INT8_HEAD_WIDTH = 16  # what that of a head is a multiple of where attention is on integers
CHOICES = {
    "head": ("binary", "linear"),
    "embedding": ("int8", "int4+2"),
    "carry": ("x", "h"),
    "slfn": ("depth", "time"),
    "pairs": ("together", "apart"),
    "pooling": get_args(Pooling),
    "attention": get_args(Attention),
}
LATER = {"multi_label": False, "pairs": "together", "pooling": "mean", "attention": "real"}
"""Fields that older releases don't know, and what these do: unstated in a file where it is just that."""


@dataclass(frozen=True)
class BEEConfig:
    """Shape and variant of a network; symbols of the paper in brackets. Refuses nonsense with ValueError."""

    vocab_size: int
    n_class: int  # m
    d_model: int = 512  # D; half of it is learned, half is the sinusoid (eq. 2)
    n_block: int = 6  # C
    n_head: int = 4  # H
    head: Literal["binary", "linear"] = "binary"  # an exit's Phi_c: binarized in two layers, or one of 8-bit weights
    d_head: int = 768  # width of the hidden layer in every binary head (Table 1)
    head_thresholds: int = 1  # how many thresholds a binary head puts on each mean
    embedding: Literal["int8", "int4+2"] = "int8"  # how the file holds the learned half, see beexformer.model.embedding
    exact_match: bool = False  # of pairs: tokens are marked by their text, and whether the other one has them too
    max_tokens: int = 128  # L at most, special tokens included
    carry: Literal["x", "h"] = "x"  # what the forget gate Sh lets through in eq. 23
    slfn: Literal["depth", "time"] = "depth"  # what "step" means in eq. 20-23; the engine runs depth
    binary: bool = True  # False: the paper's FP variants
    early_exit: bool = True  # False: the paper's WEE variants, one head after the last block
    pairs: Literal["together", "apart"] = "together"  # apart: each text by itself, heads read |a - b| and a * b
    pooling: Pooling = (
        "mean"  # of states, for linear heads; with `and_start` also one that weighs the first tokens most
    )
    attention: Attention = "real"  # on float32 numbers, or on integers (model/attention.py), when a network answers
    multi_label: bool = False  # each class has a sigmoid of its own, and any number of them apply to a text

    def __post_init__(self) -> None:
        for name, most in LARGEST.items():
            value, least = getattr(self, name), LEAST.get(name, 1)
            if type(value) is not int:  # bool is an int to isinstance
                raise ValueError(f"{name}={value!r} must be an integer")
            if not least <= value <= most:
                raise ValueError(f"{name}={value} must lie in {least}..{most}")
        for name in ("exact_match", "binary", "early_exit", "multi_label"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name}={getattr(self, name)!r} must be true or false")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {choices}")
        for name in ("d_model", "d_head"):
            if getattr(self, name) % 64:
                raise ValueError(f"{name}={getattr(self, name)} must be a multiple of 64, the bits of a packed word")
        if (k := self.d_model * self.head_thresholds) > MOST_SIGNS:
            raise ValueError(
                f"d_model * head_thresholds={k} must be at most {MOST_SIGNS}, what a product of signs can count"
            )
        if self.pairs == "apart" and (self.head != "linear" or self.exact_match or not self.early_exit):
            raise ValueError('pairs="apart" goes with linear heads at every exit, and without exact_match')
        if self.pooling != "mean" and (self.head != "linear" or self.pairs == "apart" or not self.early_exit):
            raise ValueError(
                f'pooling="{self.pooling}" goes with linear heads at every exit, and with texts or pairs read together'
            )
        if self.d_model % self.n_head:
            raise ValueError(f"d_model={self.d_model} is not divisible by n_head={self.n_head}")
        if self.attention == "int8" and self.d_model // self.n_head % INT8_HEAD_WIDTH:
            raise ValueError(f'attention="int8" goes with heads of a multiple of {INT8_HEAD_WIDTH} axes')

    @cached_property
    def exits(self) -> tuple[int, ...]:
        """Blocks (1-based) that have a head."""
        return tuple(range(1, self.n_block + 1)) if self.early_exit else (self.n_block,)

    @property
    def head_inputs(self) -> int:
        """Numbers that an exit's head reads: a mean state, with the start-weighted one beside it, or of two texts' mean
        states |a - b| and a * b."""
        return 2 * self.d_model if self.pairs == "apart" or self.pooling == "mean_and_start" else self.d_model

    @property
    def max_entropy(self) -> float:
        """S_0 in nats: the logarithm of how many answers there are, m classes or 2^m sets of labels."""
        return self.n_class * math.log(2) if self.multi_label else math.log(self.n_class)

    def to_dict(self) -> dict[str, Any]:
        return {name: value for name, value in asdict(self).items() if LATER.get(name, ...) != value}
