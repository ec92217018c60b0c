"""
What a BEExformer is, in one frozen description that training, file format and engine share.
"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

MOST_SIGNS = 65_535  # that an output may sum: kernels count them in 16 bits


@dataclass(frozen=True)
class BEEConfig:
    """Shape and variant of a network; symbols of the paper in brackets. Refuses nonsense with ValueError."""

    vocab_size: int
    n_class: int  # m
    d_model: int = 512  # D; half of it is learned, half is the sinusoid (eq. 2)
    n_block: int = 6  # C
    n_head: int = 4  # H
    d_head: int = 768  # width of the hidden layer in every exit's Phi_c (Table 1)
    head_thresholds: int = 1  # how many thresholds an exit's head puts on each mean
    embedding: Literal["int8", "int4+2"] = "int8"  # how the file holds the learned half, see beexformer.model.embedding
    exact_match: bool = False  # of pairs: tokens are marked by their text, and whether the other one has them too
    max_tokens: int = 128  # L at most, special tokens included
    carry: Literal["x", "h"] = "x"  # what the forget gate Sh lets through in eq. 23
    slfn: Literal["depth", "time"] = "depth"  # what "step" means in eq. 20-23; the engine runs depth
    binary: bool = True  # False: the paper's FP variants
    early_exit: bool = True  # False: the paper's WEE variants, one head after the last block

    def __post_init__(self) -> None:
        for name in ("vocab_size", "d_model", "n_block", "n_head", "d_head", "head_thresholds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}={getattr(self, name)} must be at least 1")
        if self.n_class < 2:
            raise ValueError(f"n_class={self.n_class} must be at least 2")
        if self.max_tokens < 3:
            raise ValueError(f"max_tokens={self.max_tokens} must be at least 3: two special tokens and a word")
        for name in ("d_model", "d_head"):
            if getattr(self, name) % 64:
                raise ValueError(f"{name}={getattr(self, name)} must be a multiple of 64, the bits of a packed word")
        for name, k in (("d_model * head_thresholds", self.d_model * self.head_thresholds), ("d_head", self.d_head)):
            if k > MOST_SIGNS:
                raise ValueError(f"{name}={k} must be at most {MOST_SIGNS}, what a product of signs can count")
        if self.d_model % self.n_head:
            raise ValueError(f"d_model={self.d_model} is not divisible by n_head={self.n_head}")
        chosen = (("carry", ("x", "h")), ("slfn", ("depth", "time")), ("embedding", ("int8", "int4+2")))
        for name, choices in chosen:
            if getattr(self, name) not in choices:
                raise ValueError(f"{name}={getattr(self, name)!r} must be one of {choices}")

    @property
    def exits(self) -> tuple[int, ...]:
        """Blocks (1-based) that have a head."""
        return tuple(range(1, self.n_block + 1)) if self.early_exit else (self.n_block,)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
