"""
What a recipe's teacher adds to its labelled rows: answers mixed with their labels, and text that it labels itself.

The teacher is fine-tuned and asked once for all variants and seeds of the recipe: its weights and answers lie in the
work folder, beside a description of what they came from, and are taken for nothing else. No row that it labels has a
text in common with the rows that are scored on.
"""

import dataclasses
import json
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from beexformer.model.errors import TrainingError
from beexformer.model.exits import softmax
from beexformer.model.folders import replacing
from beexformer.training import augment, data, precision, teacher
from beexformer.training.data import Columns, Input, Rows, digest, key, paragraphs, sentences, sides
from beexformer.training.encoders import locate
from beexformer.training.evaluate import METRICS
from beexformer.training.progress import RunProgress
from beexformer.training.recipe import OWN, Recipe, Text


@dataclasses.dataclass(frozen=True)
class Taught:
    """What a teacher adds: rows of its own, target distributions [N, m] of the labelled rows and then of these, and
    provenance."""

    rows: list[Input]
    targets: np.ndarray
    facts: dict[str, Any]


class _Tutor:
    """The fine-tuned teacher of a recipe in a run's work folder, and its answers, which are kept there too."""

    def __init__(self, recipe: Recipe, rows: Rows, n_class: int, work: Path, progress: RunProgress) -> None:
        plan = recipe.teacher
        assert plan is not None
        self.work, self.progress, self.dtype = work, progress, precision.of(recipe.optim.precision)
        # what its weights depend on; share, temperature and text are not among it
        self.made_of = plan.model_dump(include={"encoder", "epochs", "learning_rate", "batch_size", "seed"})
        self.made_of |= {"precision": recipe.optim.precision, "train_sha256": rows.sha256()}
        _describe(work / "teacher", self.made_of)
        self.network = teacher.finetune(
            locate(plan.encoder, work.parent / "encoders"),
            rows,
            n_class,
            work / "teacher",
            epochs=plan.epochs,
            learning_rate=plan.learning_rate,
            batch_size=plan.batch_size,
            dtype=self.dtype,
            seed=plan.seed,
            report=progress.stage("teacher"),
        )

    def answer(self, name: str, rows: list[Input]) -> np.ndarray:
        """Logits [N, m] for some rows."""
        folder, report = self.work / f"labels-{name}", self.progress.stage(f"teacher on {name}")
        _describe(folder, {**self.made_of, "rows_sha256": digest("\t".join(sides(row)) for row in rows)})
        pairs = [sides(row)[1] for row in rows] if len(sides(rows[0])) == 2 else None
        texts = [sides(row)[0] for row in rows]
        return teacher.answer(self.network, texts, pairs, folder, dtype=self.dtype, report=report)


def teach(
    recipe: Recipe,
    root: Path,
    work: Path,
    train: Rows,
    dev: Rows,
    test: Rows | None,
    targets: np.ndarray,
    progress: RunProgress,
) -> Taught:
    """Fine-tune the recipe's teacher on `train`, whose targets are mixed with its answers, and let it label text that
    has none in common with `dev` and `test`."""
    plan = recipe.teacher
    assert plan is not None
    scored = {key(row) for rows in (dev, test) if rows for row in rows.inputs()}
    without = scored | {side for row in scored for side in sides(row)}
    texts = [(table, _text(table, root, train, recipe.data.columns, plan.seed, without)) for table in plan.text]
    bare = next((table for table, rows in texts if not rows), None)
    if bare:
        raise TrainingError(
            f"teacher.text: nothing can be made of {bare.file} ({bare.form}) that is not also a labelled, development "
            "or test row; give another file or leave the table out"
        )
    labelled = train.longest(plan.longest) if plan.longest else train
    tutor = _Tutor(recipe, labelled, targets.shape[1], work, progress)
    predicted = tutor.answer("dev", dev.inputs()).argmax(1)
    accuracy = float((predicted == dev.labels).mean())
    score = float(METRICS[recipe.data.metric](dev.labels, predicted))
    progress.say(f"teacher {plan.encoder}: dev {recipe.data.metric} {score:.4f}, accuracy {accuracy:.4f}")
    if plan.share:
        own = softmax(tutor.answer("train", train.inputs()) / plan.temperature)
        targets = (1 - plan.share) * targets + plan.share * own
    mixed = [targets, *(softmax(tutor.answer(table.name, rows) / plan.temperature) for table, rows in texts)]
    unlabelled = [row for _, rows in texts for row in rows]
    # two tables of one file may hold the same sentence
    first = sorted({key(row): i for i, row in reversed([*enumerate(unlabelled)])}.values())
    facts = {
        "encoder": plan.encoder,
        "dev_accuracy": accuracy,
        "dev_score": score,
        "train_rows": len(labelled),
        "unlabelled": ", ".join(f"{table.file} ({table.form})" for table in plan.text) or None,
        "unlabelled_rows": len(first),
        "text": [{**table.model_dump(), "rows": len(rows)} for table, rows in texts],
    }
    kept = np.concatenate(mixed)[[*range(len(train)), *(len(train) + i for i in first)]]
    return Taught([unlabelled[i] for i in first], kept.astype(np.float32), facts)


def _text(table: Text, root: Path, train: Rows, columns: Columns, seed: int, without: Collection[Input]) -> list[Input]:
    """The rows of one table, a function of seed and texts; none of them has a text whose key is in `without`."""
    if table.pairs not in (None, bool(train.pairs)):
        kinds = ("single texts", "pairs")
        raise TrainingError(
            f"teacher.text: {table.form!r} of {table.file} makes {kinds[table.pairs]}, "
            f"the task has {kinds[not table.pairs]}"
        )
    rng = np.random.default_rng([seed, zlib.crc32(table.name.encode())])
    own = table.file == OWN
    rows = train.inputs()
    if table.form == "rows":
        path = root / table.file
        others = data.read_inputs(data.find_split(path, "train") or path, columns)
        shuffled = (others[i] for i in rng.permutation(len(others)))
        return augment.distinct(shuffled, table.rows, {*without, *map(key, rows)})
    # like the task's own rows: words of the first and of the last text, without the shortest and the longest
    lengths = np.array([[len(side.split()) for side in (sides(row)[0], sides(row)[-1])] for row in rows])
    low, high = np.percentile(lengths, [5, 95], axis=0).astype(int)
    usual = np.clip(lengths, low, high)
    if own:
        without = {*without, *map(key, rows)}
        words = augment.Words(side for row in rows for side in sides(row))
        stream: Iterator[Input] = (
            augment.rewritten_pairs([*zip(train.texts, train.pairs, strict=True)], words, rng)
            if train.pairs
            else augment.perturbed(train.texts, words, rng, share=1.0)
        )
    elif table.pairs:
        result = paragraphs(root / table.file)
        words = augment.Words(result[i] for i in rng.permutation(len(result))[:10_000])
        stream = (
            augment.neighbours(result, usual, rng)
            if table.form == "neighbours"
            else augment.rewritten(result, usual, words, rng)
        )
    else:
        if table.form == "sentences":
            return [*sentences(root / table.file, table.rows, seed, without=without)]
        span = max(3, int(low[0])), int(high[0])
        drawn = sentences(root / table.file, 4 * table.rows, seed, span, without)
        drawn = [text for text in drawn if augment.plain(text)][: table.rows]
        stream = augment.perturbed(drawn, augment.Words(drawn), rng, share=0.5)
    return augment.distinct(stream, table.rows, without)


def _describe(folder: Path, fingerprint: dict[str, Any]) -> None:
    """Put a description beside what a teacher leaves in `folder`. Raises TrainingError where another one is there, or
    something without one: it was made by another teacher, or of other rows."""
    file = folder / "fingerprint.json"
    if folder.exists() and any(folder.iterdir()):
        if not file.exists() or json.loads(file.read_text()) != fingerprint:
            raise TrainingError(
                f"{folder} comes from another [teacher] section or from other rows; remove it or give another --work"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(file) as partial:
        partial.write_text(json.dumps(fingerprint, indent=1) + "\n")
