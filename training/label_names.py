"""
What classes are called: a file of labels, and heads made of it before a single row is there.

A line of the file is a class: its label, and what describes it in a few words after a tab or a colon and a blank, if
anything does. A backbone's readers turn the words into a row of every exit's head, as they do for labels that a request
names (`model.candidates`).
"""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from beexformer.model import candidates, probes
from beexformer.model.checkpoint import Checkpoint
from beexformer.model.embedding import quantize
from beexformer.model.errors import TrainingError
from beexformer.model.tensors import READERS
from beexformer.training import mean_states
from beexformer.training.backbone import Backbone
from beexformer.training.network import BEExformer

SHARPNESS = 12.0
"""Of the cosine between a text's vector and a label's. With labels alone 10 to 16 have the least cross-entropy
on agnews and tweet_emotion, on trec6 6 (docs/log.md): where nothing is measured, scores are no more than an order."""
MOST = 1000  # classes
LONGEST = 300  # characters of a line
WORD = 3  # letters that a label has at least, if it is to say anything


@dataclass(frozen=True)
class LabelNames:
    """The classes of a file, in its order: what each is called, and the words that are read of it."""

    labels: list[str]
    described: dict[str, str]


def read(path: Path) -> LabelNames:
    """Raises TrainingError, one sentence, for a file that can't be read or holds no such list."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise TrainingError(f"{path} can't be read ({error.strerror}); give a text file with a label a line") from None
    except UnicodeDecodeError:
        raise TrainingError(f"{path} is no UTF-8 text; save it as a text file with a label a line") from None
    described: dict[str, str] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        if len(line) > LONGEST:
            raise TrainingError(
                f"{path}: line {number} has {len(line)} characters and may have {LONGEST}; a few words do"
            )
        label, words = _parted(line)
        if not label:
            raise TrainingError(f"{path}: line {number} has a description and no label before it")
        if label.lower() in map(str.lower, described):
            raise TrainingError(f"{path}: line {number} has the label {label!r} once more; take one of them out")
        described[label] = f"{candidates.words(label)}: {words}" if words else candidates.words(label)
    if not 2 <= len(described) <= MOST:
        raise TrainingError(f"{path} has {len(described)} labels and may have 2 to {MOST}, a line each")
    return LabelNames([*described], described)


def _parted(line: str) -> tuple[str, str]:
    """(label, description or "")."""
    for between in ("\t", ": "):
        label, result, words = line.partition(between)
        if result:
            return label.strip(), words.strip()
    return line.strip(), ""


def telling(labels: list[str]) -> bool:
    """Whether labels are words, all of them, and not numbers or codes."""
    return all(sum(map(str.isalpha, label)) >= max(WORD, len(label) / 2) for label in labels)


def scaled_readers(start: Backbone, network: BEExformer) -> tuple[np.ndarray, np.ndarray]:
    """Readers as a checkpoint has them, [C, D, D] int8 rows and scales [C, D] float32: with a label's unit vector they
    give SHARPNESS times about the cosine, vectors of texts being about as long as those of our probes. Raises
    TrainingError for a backbone that has none."""
    if start.readers is None:
        raise TrainingError(
            f"backbone {start.provenance['name']!r} has no readers, and without them labels say nothing to it; take "
            "one that has, as 'english'"
        )
    engine = mean_states.engine_of(network, start.tokenizer)
    states = mean_states.of(engine, [text for text, _ in probes.TEXTS], 1)
    lengths = np.linalg.norm(np.einsum("edk,nek->ned", start.readers, states), axis=2).mean(0)
    rows, scales = zip(
        *(quantize(reader * SHARPNESS / n) for reader, n in zip(start.readers, lengths, strict=True)), strict=True
    )
    return np.stack(rows), np.stack(scales)


def heads_of(
    words: list[str], readers: tuple[np.ndarray, np.ndarray], network: BEExformer, tokenizer: str
) -> np.ndarray:
    """What m classes are called -> heads of all exits, [C, m, D] float32."""
    states = mean_states.of(mean_states.engine_of(network, tokenizer), [*words], 1)[:, -1]
    real_readers = candidates.readers_of(*readers)
    return np.stack([candidates.rows_of(real_readers, state) for state in states], 1)


def with_readers(checkpoint: Checkpoint, readers: tuple[np.ndarray, np.ndarray]) -> Checkpoint:
    """A checkpoint of which requests may name classes of their own."""
    return replace(
        checkpoint, candidate_labels=True, tensors={**checkpoint.tensors, **dict(zip(READERS, readers, strict=True))}
    )
