"""
From a recipe to what the loop reads: rows of ids with target distributions, and what the network starts from.

Where a recipe has a teacher, it is fine-tuned and asked here, once for all variants and seeds of the recipe: its
weights and answers lie in the work folder, beside a description of what they came from, and are taken for nothing else.
Rows that are scored on are never trained on: labelled rows that are also development or test rows are dropped, and no
row that a teacher labels has a text in common with them.
"""

import dataclasses
import json
import zlib
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from beexformer.model.config import BEEConfig
from beexformer.model.errors import TrainingError
from beexformer.model.exits import softmax
from beexformer.model.tokenizer import Tokenizer, train_wordpiece
from beexformer.training import augment, backbone, data, precision, teacher, warm_start
from beexformer.training.backbone import Backbone
from beexformer.training.data import Columns, Input, Rows, digest, key, paragraphs, sentences, sides
from beexformer.training.encoders import locate
from beexformer.training.evaluate import METRICS, splits
from beexformer.training.progress import RunProgress
from beexformer.training.recipe import FROZEN, OWN, Network, Recipe, Text
from beexformer.training.warm_start import WarmStart


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Data as the loop wants it: rows of ids with target distributions [N, m] float32, and what they came from.

    The first `len(train)` of them are the labelled rows, the others what the teacher labelled.
    """

    config: BEEConfig
    labels: list[str]
    tokenizer: str
    embedding: np.ndarray | None  # [V, D/2] float32 to start from
    ids: list[np.ndarray]
    targets: np.ndarray
    train: Rows
    dev: Rows
    dev_ids: list[np.ndarray]
    test: Rows | None
    facts: dict[str, Any]  # provenance
    unlabelled: list[Input] = dataclasses.field(default_factory=list)
    start: Backbone | WarmStart | None = None


def prepare(recipe: Recipe, root: Path, work: Path, progress: RunProgress, variant: str = "proposed") -> Prepared:
    """Read and tokenize everything the run needs; with a teacher in the recipe, train and ask it first."""
    start = _start(recipe, root, variant)
    found = splits(recipe.data, root, start.found.labels if isinstance(start, WarmStart) else None)
    dev, test, labels = found.dev, found.test, found.labels
    if len(labels) < 2:
        raise TrainingError(f"{recipe.data.train}: only one class, {labels[0]!r}; a classifier needs at least two")
    train = data.without(found.train, dev, test)
    dropped = len(found.train) - len(train)
    if not len(train):
        raise TrainingError(f"{recipe.data.train}: every training row is also a development or test row")
    if dropped:
        progress.say(f"{dropped} training rows dropped: they are also development or test rows")
    network = recipe.network if start is None else _shaped(recipe, start)
    json_text, embedding = (start.tokenizer, None) if start else _vocabulary(recipe, train, work)
    tokenizer = Tokenizer(json_text, network.max_tokens)
    try:
        config = network.config(tokenizer.vocab_size, len(labels), variant)
    except ValueError as error:
        raise TrainingError(f"recipe {recipe.name}: {error}") from None
    targets = _one_hot(train.labels, len(labels), recipe.optim.label_smoothing)
    unlabelled: list[Input] = []
    facts: dict[str, Any] = {"train_rows": len(train), "train_rows_dropped": dropped}
    if start:
        facts["checkpoint" if recipe.start.checkpoint else "backbone"] = start.provenance
    if recipe.teacher:
        scored = {key(row) for rows in (dev, test) if rows for row in rows.inputs()}
        without = scored | {side for row in scored for side in sides(row)}
        unlabelled, targets, facts["teacher"] = _taught(recipe, root, work, train, dev, targets, without, progress)

    def encode(rows: list[Input]) -> list[np.ndarray]:
        return [np.array(e.ids, dtype=np.int32) for e in tokenizer.inner.encode_batch(rows)]

    ids = encode(train.inputs())
    median, p99 = np.percentile([len(row) for row in ids], [50, 99])
    facts |= {"tokens_median": int(median), "tokens_p99": int(p99)}
    ids += encode(unlabelled)
    dev_ids = encode(dev.inputs())
    return Prepared(
        config, labels, json_text, embedding, ids, targets, train, dev, dev_ids, test, facts, unlabelled, start
    )


def _start(recipe: Recipe, root: Path, variant: str) -> Backbone | WarmStart | None:
    """The backbone or the checkpoint that the recipe names."""
    if recipe.start.backbone:
        return backbone.read(recipe.start.backbone, root)
    if not recipe.start.checkpoint:
        return None
    start = warm_start.read(recipe.start.checkpoint, root)
    if variant != "proposed":
        raise TrainingError(f"a checkpoint is the proposed network; of {variant!r} there is none to go on from")
    if recipe.data.labels not in (None, [*start.found.labels]):
        raise TrainingError(
            f"data.labels are not those of the checkpoint, {', '.join(start.found.labels)}; leave them out"
        )
    if start.found.config.embedding == "int4+2" and recipe.optim.embedding != "frozen":
        raise TrainingError(f"the rows of its embedding can't leave their grid; add {FROZEN}")
    return start


def _shaped(recipe: Recipe, start: Backbone | WarmStart) -> Network:
    """The recipe's network in the shape of what it starts from, which it may repeat but not contradict."""
    for name, value in start.shape.items():
        stated = getattr(recipe.network, name)
        if name in recipe.network.model_fields_set and stated != value:
            raise TrainingError(
                f"recipe {recipe.name}: network.{name} is {stated!r}, but that of its start, "
                f"{start.provenance['name']!r}, is {value!r}; leave it out"
            )
    return recipe.network.model_copy(update=start.shape)


def _vocabulary(recipe: Recipe, train: Rows, work: Path) -> tuple[str, np.ndarray | None]:
    """Tokenizer as JSON, and real embedding rows [V, D/2] where a pretrained encoder gives them (by PCA)."""
    if recipe.start.encoder is None:
        kept = work / "tokenizer.json"  # learning it again would give another one
        if not kept.exists():
            kept.write_text(train_wordpiece([*train.texts, *(train.pairs or [])], recipe.start.vocab_size))
        return kept.read_text(), None
    folder = locate(recipe.start.encoder, work.parent / "encoders")
    weights = load_file(folder / "model.safetensors")
    rows = next(tensor for name, tensor in weights.items() if name.endswith("word_embeddings.weight")).astype(
        np.float64
    )
    rows -= rows.mean(0)
    width = recipe.network.d_model // 2
    _, axes = np.linalg.eigh(rows.T @ rows)
    reduced = rows @ axes[:, ::-1][:, :width]
    if reduced.shape[1] < width:
        raise TrainingError(f"encoder {recipe.start.encoder!r} has {rows.shape[1]} dimensions, d_model / 2 is {width}")
    # half the size of the sinusoid's neighbourhood: inside [-1, 1], where eq. 9 lets gradients through
    return (folder / "tokenizer.json").read_text(), (0.5 * reduced / reduced.std()).astype(np.float32)


def _one_hot(labels: np.ndarray, n_class: int, smoothing: float) -> np.ndarray:
    smooth: np.ndarray = (1 - smoothing) * np.eye(n_class)[labels] + smoothing / n_class
    return smooth.astype(np.float32)


# ---------------------------------------------------------------- the teacher and what it labels


def _taught(
    recipe: Recipe,
    root: Path,
    work: Path,
    train: Rows,
    dev: Rows,
    targets: np.ndarray,
    without: Collection[Input],
    progress: RunProgress,
) -> tuple[list[Input], np.ndarray, dict[str, Any]]:
    """Unlabelled rows, targets of all rows (labelled ones mixed with the teacher's answer), and provenance."""
    plan = recipe.teacher
    assert plan is not None
    dtype = precision.of(recipe.optim.precision)
    # what its weights depend on; share, temperature and text are not among it
    made = plan.model_dump(include={"encoder", "epochs", "learning_rate", "batch_size", "seed"})
    rows = train.longest(plan.longest) if plan.longest else train
    made |= {"precision": recipe.optim.precision, "train_sha256": rows.sha256()}
    texts = [(table, _text(table, root, train, recipe.data.columns, plan.seed, without)) for table in plan.text]
    bare = next((table for table, rows in texts if not rows), None)
    if bare:
        raise TrainingError(
            f"teacher.text: nothing can be made of {bare.file} ({bare.form}) that is not also a labelled, development "
            "or test row; give another file or leave the table out"
        )
    _describe(work / "teacher", made)
    tutor = teacher.finetune(
        locate(plan.encoder, work.parent / "encoders"),
        rows,
        targets.shape[1],
        work / "teacher",
        epochs=plan.epochs,
        learning_rate=plan.learning_rate,
        batch_size=plan.batch_size,
        dtype=dtype,
        seed=plan.seed,
        report=progress.stage("teacher"),
    )

    def answers(name: str, rows: list[Input]) -> np.ndarray:
        folder, report = work / f"labels-{name}", progress.stage(f"teacher on {name}")
        _describe(folder, {**made, "rows_sha256": digest("\t".join(sides(row)) for row in rows)})
        texts, pairs = [sides(row)[0] for row in rows], [sides(row)[-1] for row in rows] if train.pairs else None
        return teacher.answer(tutor, texts, pairs, folder, dtype=dtype, report=report)

    predicted = answers("dev", dev.inputs()).argmax(1)
    accuracy = float((predicted == dev.labels).mean())
    score = float(METRICS[recipe.data.metric](dev.labels, predicted))
    progress.say(f"teacher {plan.encoder}: dev {recipe.data.metric} {score:.4f}, accuracy {accuracy:.4f}")
    mixed = [targets]
    if plan.share:
        mixed = [(1 - plan.share) * targets + plan.share * softmax(answers("train", train.inputs()) / plan.temperature)]
    unlabelled = [row for _, rows in texts for row in rows]
    mixed += [softmax(answers(table.name, rows) / plan.temperature) for table, rows in texts]
    # two tables of one file may hold the same sentence
    first = sorted({key(row): i for i, row in reversed([*enumerate(unlabelled)])}.values())
    unlabelled = [unlabelled[i] for i in first]
    targets = np.concatenate(mixed)[[*range(len(train)), *(len(train) + i for i in first)]]
    facts = {
        "encoder": plan.encoder,
        "dev_accuracy": accuracy,
        "dev_score": score,
        "train_rows": len(rows),
        "unlabelled": ", ".join(f"{table.file} ({table.form})" for table in plan.text) or None,
        "unlabelled_rows": len(unlabelled),
        "text": [{**table.model_dump(), "rows": len(rows)} for table, rows in texts],
    }
    return unlabelled, targets.astype(np.float32), facts


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
        found = paragraphs(root / table.file)
        words = augment.Words(found[i] for i in rng.permutation(len(found))[:10_000])
        stream = (
            augment.neighbours(found, usual, rng)
            if table.form == "neighbours"
            else augment.rewritten(found, usual, words, rng)
        )
    else:
        if table.form == "sentences":
            return [*sentences(root / table.file, table.rows, seed, without=without)]
        span = max(3, int(low[0])), int(high[0])
        drawn = sentences(root / table.file, 4 * table.rows, seed, span, without)
        drawn = [text for text in drawn if augment.plain(text)][: table.rows]
        stream = augment.perturbed(drawn, augment.Words(drawn), rng, share=0.5)
    return augment.distinct(stream, table.rows, without)


def _describe(folder: Path, made: dict[str, Any]) -> None:
    """Put a description beside what a teacher leaves in `folder`. Raises TrainingError where another one is there, or
    something without one: it was made by another teacher, or of other rows."""
    file = folder / "made.json"
    if folder.exists() and any(folder.iterdir()):
        if not file.exists() or json.loads(file.read_text()) != made:
            raise TrainingError(
                f"{folder} comes from another [teacher] section or from other rows; remove it or give another --work"
            )
        return
    folder.mkdir(parents=True, exist_ok=True)
    partial = file.with_suffix(".partial")
    partial.write_text(json.dumps(made, indent=1) + "\n")
    partial.rename(file)
