"""
What training is about to learn from, before it does: classes and their rows, what is held out, the score of always
saying the largest class, and what an owner would rather know now than later.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from rich.columns import Columns
from rich.console import Group, RenderableType
from rich.table import Table

from beexformer.training import label_sets
from beexformer.training.data import Input, Rows, key, sides

FEW = 3  # rows of a class, below which none is held out and the class is named
NAMED = 10  # things that a sentence lists
WORDS = {
    "English": "the and of to in is that it was for on with he as you at this but his by from they we have not are",
    "German": "der die und das ist nicht mit ein eine auf den von zu sich auch es wird dem für sind werden bei ich",
    "French": "le la les et des est une que pas pour dans qui sur du au avec ce il sont ne plus cette être nous",
    "Spanish": "el la los que y las del se por con una su para es lo como más pero sus este fue muy está todo",
    "Italian": "il di che la per un non è una sono con del si da come anche ma più questo della nel alla gli",
    "Portuguese": "o que não uma os do da em para com se na por mais as dos como mas foi ao ele das tem seu",
    "Dutch": "de het een van en is dat niet te zijn op voor met aan die er om als ook maar bij nog uit",
}
"""Frequent little words; no proof of a language, but where English has none of them and another many, it is plain."""
KNOWN = {language: frozenset(words.split()) for language, words in WORDS.items()}


@dataclass(frozen=True)
class Overview:
    """Rows as they will be trained on; `cut` of the training rows have more than `max_tokens` tokens. `dev` is None
    where nothing is held out, because the training rows are cross-validated."""

    train: Rows
    dev: Rows | None
    labels: Sequence[str]
    cut: int
    max_tokens: int

    @property
    def counts(self) -> np.ndarray:
        """Rows of each class [m], trained on and held out together."""
        return self.train.counts(len(self.labels)) + self.held_out

    @property
    def held_out(self) -> np.ndarray:
        return self.dev.counts(len(self.labels)) if self.dev else np.zeros(len(self.labels), np.int64)

    @property
    def majority(self) -> tuple[str, float]:
        """The largest class of the training rows, and the accuracy on the held-out rows of always saying it; without
        any, on the training rows."""
        largest = int(self.train.counts(len(self.labels)).argmax())
        rows = self.dev or self.train
        right = rows.labels[:, largest] if rows.multi_label else rows.labels == largest
        return self.labels[largest], float(right.mean())

    def notes(self) -> list[str]:
        """A sentence for each thing to know."""
        result = [self._frequent()]
        if joined := label_sets.looks_joined(self.labels):
            result.append(
                f"labels look like several with {joined!r} between them; --label-separator {joined!r} reads them so"
            )
        few = [label for label, n in zip(self.labels, self.counts, strict=True) if n < FEW]
        if few:
            result.append(f"fewer than {FEW} rows: {listed(few)}; such a class is hardly learned and hardly scored")
        unseen = [label for label, n in zip(self.labels, self.counts - self.held_out, strict=True) if not n]
        if unseen:
            result.append(f"no row to learn from: {listed(unseen)}")
        inputs = self.train.inputs()
        repeated, contrary = duplicates(inputs, self.train.labels)
        if repeated:
            result.append(f"{repeated} rows repeat the text of another")
        if contrary:
            result.append(f"{contrary} texts stand there with different labels; no model can get them all right")
        if self.cut:
            more = "; --max-tokens (to 512) reads more" if self.max_tokens < 512 else ""
            result.append(
                f"{self.cut} of {len(inputs)} texts have more than {self.max_tokens} tokens, and what comes after is "
                f"not read{more}"
            )
        if language := language_of(inputs):
            result.append(f"the texts look like {language}; what training starts from has read English only")
        return result

    def _frequent(self) -> str:
        """What always saying one thing would be worth; of several labels a text, how many a text has."""
        name, score = self.majority
        rows = self.dev or self.train
        scored = f"the {len(rows)} held-out rows" if self.dev else f"the {len(rows)} rows"
        if not rows.multi_label:
            return f"always saying {name!r} would be right for {score:.1%} of {scored}"
        counts = np.bincount(self.train.labels.sum(1))
        spread = ", ".join(f"{n} rows with {k or 'none'}" for k, n in enumerate(counts.tolist()) if n)
        return (
            f"{self.train.labels.sum() / len(self.train):.2f} labels a text: {spread}; {name!r}, the most frequent, "
            f"applies to {score:.1%} of {scored}"
        )

    def table(self) -> RenderableType:
        """Classes, their rows and notes, for a terminal; many classes in columns."""
        held = f"{len(self.dev)} held out" if self.dev else "each judged by what is learned without it"
        kind = "labels, of which a text may have several" if self.train.multi_label else "classes"
        title = f"{len(self.train)} rows to learn from, {held}, {len(self.labels)} {kind}"
        lines = zip(self.labels, self.counts.tolist(), self.held_out.tolist(), strict=True)
        rows = len(self.train) + len(self.dev or [])
        if len(self.labels) <= 20:
            table = Table("label" if self.train.multi_label else "class")
            for column in ("rows", "held out", "share"):
                table.add_column(column, justify="right")
            for label, count, held in lines:
                table.add_row(shortened(label), str(count), str(held), f"{count / rows:.1%}")
            classes: RenderableType = table
        else:
            cells = [f"{shortened(label, 32)} {count} ({held})" for label, count, held in lines]
            title += "; rows of each (held out)"
            classes = Columns(cells, padding=(0, 2))
        return Group(title, classes, *(f"- {note}" for note in self.notes()))


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(map(repr, names[:NAMED])) + more


def shortened(label: str, longest: int = 40) -> str:
    return label if len(label) <= longest else f"{label[: longest - 1]}…"


def duplicates(inputs: Sequence[Input], labels: np.ndarray) -> tuple[int, int]:
    """(rows whose text stands further up, texts that stand there with more than one label)."""
    seen: defaultdict[Input, set[bytes]] = defaultdict(set)
    for row, label in zip(inputs, labels, strict=True):
        seen[key(row)].add(label.tobytes())  # of a class, or of a set of labels
    return len(inputs) - len(seen), sum(len(given) > 1 for given in seen.values())


def language_of(inputs: Sequence[Input]) -> str | None:
    """What the texts plainly are if they aren't English: another language, or another script; None otherwise."""
    step = max(1, len(inputs) // 1000)
    text = " ".join(side for row in inputs[::step] for side in sides(row)).lower()
    letters = [sign for sign in text if sign.isalpha()]
    if not letters:
        return None
    if sum(sign > "\u024f" for sign in letters) > 0.3 * len(letters):
        return "no Latin script"
    words = Counter(re.findall(r"[^\W\d_]+", text))
    total = sum(words.values())
    share = {language: sum(words[word] for word in known) / total for language, known in KNOWN.items()}
    best = max(share, key=lambda language: share[language])
    return best if best != "English" and share[best] > max(0.08, 1.8 * share["English"]) else None
