"""
Texts that a checkpoint keeps with their answers, so that whoever loads it sees that tokenizer, weights and engine still
belong together.

A text's ids are compared exactly when a checkpoint is loaded, its logits once kernels are there, in `Engine.warm`: a
few milliseconds a model. Kernels give equal logits on every machine. A later release may sum in another order, and
where a sum lies within rounding of a threshold a bit flips, and the logits with it. So a probe is only kept where two
orders of summation, the kernels' and the reference implementation's, agree: there no sign hangs on the last digits.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from beexformer.model.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from beexformer.model.engine import Engine

TOLERANCE = 1e-3
"""Of a logit, relative to the largest one of its probe or to 1: a hundred times what rounding does, a hundredth of what
a flipped bit does."""
ENOUGH = 6
TEXTS: tuple[tuple[str, str], ...] = (
    ("a warm, funny film", "it made me laugh and cry"),
    ("The worst movie I have ever seen!", "I liked every minute of it."),
    ("Привет, 世界 🙂", "Hello, world"),
    ("Two men are playing football in the park.", "Nobody is outside."),
    ("The company said profits rose 12.5 % to $3 million", "Profits fell last year, the company said."),
    ("don't know how to fix this error in my code", "How do I repair my code?"),
    ("Café déjà vu, naïve façade", "coffee, seen before"),
    ("BUY NOW!!! www.example.com :-)", "an offer that you can't refuse"),
    ("the the the cat sat on on mat", "The cat sat on the mat."),
    ("Where was the treaty of 1648 signed?", "It was signed in Westphalia."),
    ("great", "bad"),
    ("not bad at all", "rather good"),
    ("Please send the invoice again, the first one was empty.", "The invoice has been paid."),
    ("I am so happy today", "I am sad"),
    ("the law was passed by the senate in march", "In March the senate passed the law."),
    ("it works, but the battery is dead after an hour", "poor battery"),
)
"""Our own sentences, of several kinds: nothing of what a model was trained on is written into its checkpoint."""


@dataclass(frozen=True)
class Probe:
    """A text, the SHA-256 of its token ids (int32, little-endian) and the logits of every exit [exits][m]."""

    text: str
    text_pair: str | None
    ids_sha256: str
    logits: tuple[tuple[float, ...], ...]


def make(engine: "Engine") -> tuple[Probe, ...]:
    """At most ENOUGH probes of a network: the first texts on which kernels and reference implementation agree."""
    result: list[Probe] = []
    pairs = engine.input == "pair"
    for text, text_pair in TEXTS:
        row = engine.encode(text, text_pair if pairs else None)
        logits, reference = engine.logits([row])[0], engine.reference_logits(row)
        if np.abs(logits - reference).max() <= TOLERANCE / 10 * _scale(logits):
            rounded = tuple(tuple(float(f"{z:.7g}") for z in exit_) for exit_ in logits)
            result.append(Probe(text, text_pair if pairs else None, ids_sha256(row.every_id), rounded))
        if len(result) == ENOUGH:
            break
    return tuple(result)


def ids_sha256(ids: np.ndarray) -> str:
    return hashlib.sha256(ids.astype("<i4").tobytes()).hexdigest()


def check_ids(engine: "Engine", probes: Sequence[Probe]) -> None:
    """Raises CheckpointError where the tokenizer makes other ids than it did."""
    for probe in probes:
        try:
            row = engine.encode(probe.text, probe.text_pair)
        except InputError as error:
            raise CheckpointError(f"checkpoint {engine.name!r} refuses its own probe: {error}") from None
        if ids_sha256(row.every_id) != probe.ids_sha256:
            raise CheckpointError(
                f"checkpoint {engine.name!r} reads {probe.text!r} otherwise than when it was exported: "
                "tokenizer.json is another one, or the tokenizers package has changed; copy it again, or export "
                "it anew with `beexformer train`"
            )


def check_logits(engine: "Engine", probes: Sequence[Probe]) -> None:
    """Raises CheckpointError where the network answers otherwise than it did."""
    for probe in probes:
        logits = engine.logits([engine.encode(probe.text, probe.text_pair)])[0]
        wanted = np.array(probe.logits)
        if not np.abs(logits - wanted).max() <= TOLERANCE * _scale(wanted):  # also refuses NaN
            raise CheckpointError(
                f"checkpoint {engine.name!r} answers {probe.text!r} otherwise than when it was exported: "
                "its weights are other ones; copy the folder again or export it anew with `beexformer train`"
            )


def _scale(logits: np.ndarray) -> float:
    return max(1.0, float(np.abs(logits).max()))
