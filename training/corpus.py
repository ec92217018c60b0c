"""
Running text as token ids: the sentences of text files one after another, so that a row of any length is a start and a
count. Made once, read whole into a device's memory.

What must not be read is left out: texts of development and test files, and whole paragraphs held out for an evaluation
on long text. Knows no torch.
"""

import gzip
import json
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

from beexformer.model import tables
from beexformer.model.errors import TrainingError
from beexformer.model.folders import replacing
from beexformer.training.data import Input, cut, key

LONGEST = 126  # tokens of a sentence; longer ones are cut, and lengths are stored in a byte
MOST_WORDS = 120
FEW_WORDS = 4  # a sentence of fewer words that also stands in a held-out paragraph is no leak ("Great movie.")
AT_ONCE = 20_000  # sentences that are tokenized together
INSIDE, PARAGRAPH, DOCUMENT = 0, 1, 2
"""What ends after a sentence: nothing, its paragraph, its document. Running text stops at the end of a document."""


@dataclass(frozen=True)
class Corpus:
    """Ids [T] uint16 of all sentences in running order, the length [S] uint8 and the end [S] uint8 of each; sentences
    of each file [F]."""

    ids: np.ndarray
    lengths: np.ndarray
    ends: np.ndarray
    files: np.ndarray

    def __len__(self) -> int:
        return len(self.lengths)

    def save(self, path: Path, fingerprint: str) -> None:
        """Whole or not at all; `fingerprint` says what it was made of."""
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, **vars(self), fingerprint=np.array(fingerprint))


def read(path: Path, fingerprint: str) -> Corpus | None:
    """What `save` wrote, or None where there is nothing or it was made of something else."""
    if not path.exists():
        return None
    with np.load(path) as result:
        if str(result["fingerprint"]) != fingerprint:
            return None
        return Corpus(result["ids"], result["lengths"], result["ends"], result["files"])


def join(parts: Sequence[Corpus]) -> Corpus:
    """Corpora one after another; each one's last sentence ends a document."""
    for part in parts:
        part.ends[-1] = DOCUMENT
    return Corpus(*(np.concatenate([getattr(p, name) for p in parts]) for name in ("ids", "lengths", "ends", "files")))


def keys_of(files: Sequence[Path]) -> set[Input]:
    """Keys of every text of some data files, and of their sentences where one has more than a few words."""
    result: set[Input] = set()
    for file in files:
        with tables.read(file) as table:
            names = [column for column in table.columns if column != "label"]
            for row in tables.texts(table, names):
                for text in row:
                    result.add(key(text))
                    result |= {key(s) for s in cut(text) if len(s.split()) >= FEW_WORDS}
    return result


def documents(path: Path) -> Iterator[tuple[str, int]]:
    """Lines of a text file with what ends after each. A file with blank lines parts documents by them; in others every
    line is one. Raises TrainingError where it can't be read."""
    try:
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            texts = [line.strip() for line in lines]
    except FileNotFoundError:
        raise TrainingError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise TrainingError(f"{path} is no text file: {error}") from None
    parted = "" in texts[:-1]
    for i, text in enumerate(texts):
        if text:
            last = i + 1 == len(texts) or not texts[i + 1]
            yield text, DOCUMENT if last or not parted else PARAGRAPH


def prepare(
    path: Path, tokenizer: Tokenizer, without: Collection[Input] = (), lines_out: Collection[int] = ()
) -> Corpus:
    """Read a text file with a paragraph a line. `without` are keys of sentences that are left out, `lines_out` numbers
    of lines (from 0, blank ones not counted). `tokenizer` neither pads nor cuts."""
    sentences: list[str] = []
    ends: list[int] = []
    left_out = set(lines_out)
    for number, (text, end) in enumerate(documents(path)):
        result = [s for s in cut(text) if 1 <= len(s.split()) <= MOST_WORDS and key(s) not in without]
        if number in left_out or not result:
            if ends and end == DOCUMENT:
                ends[-1] = DOCUMENT
            continue
        sentences += result
        ends += [INSIDE] * (len(result) - 1) + [end]
    if not sentences:
        raise TrainingError(f"{path} has no sentence that may be read")
    ids: list[np.ndarray] = []
    for start in range(0, len(sentences), AT_ONCE):
        encodings = tokenizer.encode_batch(sentences[start : start + AT_ONCE], add_special_tokens=False)
        ids += [np.array(encoding.ids[:LONGEST], np.uint16) for encoding in encodings]
    lengths, flags = np.array([len(row) for row in ids], np.uint8), np.array(ends, np.uint8)
    for i in np.flatnonzero(lengths == 0):  # a sentence of no token hands its end to the one before
        if i:
            flags[i - 1] = max(flags[i - 1], flags[i])
    kept = lengths > 0
    return Corpus(np.concatenate(ids), lengths[kept], flags[kept], np.array([kept.sum()]))


def hold_out(path: Path, count: int, seed: int) -> tuple[list[int], set[Input]]:
    """Numbers of `count` paragraphs drawn from a file, and the keys of their sentences of more than a few words. Other
    lines of the same text are among the numbers too."""
    texts = [text for text, _ in documents(path)]
    drawn = np.random.default_rng(seed).permutation(len(texts))[:count]
    chosen = {key(texts[i]) for i in drawn}
    numbers = [i for i, text in enumerate(texts) if key(text) in chosen]
    return numbers, {key(s) for i in drawn for s in cut(texts[i]) if len(s.split()) >= FEW_WORDS}


def gather(
    files: Sequence[Path], keep_out: Sequence[Path], held_out: tuple[Path, int, int] | None, tokenizer: Tokenizer,
    path: Path, fingerprint: str,
) -> Corpus:  # fmt: skip
    """The corpus of `files`, from `path` where it lies there already. `held_out` is a file, how many of its paragraphs
    nobody may read, and a seed; the numbers of their lines are written beside it."""
    for file in [*files, *keep_out]:
        if not file.exists():
            raise TrainingError(f"{file}: no such file; is the data folder right (--data, or BEE_DATA)?")
    fingerprint += f" {[file.stat().st_size for file in files]}"
    result = read(path, fingerprint)
    if result:
        return result
    without = keys_of(keep_out)
    numbers: list[int] = []
    if held_out:
        numbers, sentences = hold_out(*held_out)
        without |= sentences
        path.with_name("held_out.json").write_text(json.dumps({"file": held_out[0].name, "lines": numbers}) + "\n")
    whole = join([prepare(f, tokenizer, without, numbers if held_out and f == held_out[0] else ()) for f in files])
    whole.save(path, fingerprint)
    return whole
