"""
From a recipe to what the loop reads: rows of ids with target distributions, and what the network starts from.

Rows that are scored on are never trained on: labelled rows that are also development or test rows are dropped.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from beexformer.model.config import BEEConfig
from beexformer.model.errors import TrainingError
from beexformer.model.tokenizer import Tokenizer, train_wordpiece
from beexformer.training import backbone, data, passages, teacher_labels, vocabulary, warm_start
from beexformer.training.backbone import Backbone
from beexformer.training.data import Input, Rows, sides
from beexformer.training.encoders import locate
from beexformer.training.overview import Overview
from beexformer.training.progress import RunProgress
from beexformer.training.recipe import FROZEN, Network, Recipe
from beexformer.training.splits import Splits, splits
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
    (train, dev, test, labels), dropped = _splits(recipe, root, start)
    cross_validated = dev is train
    if dropped:
        progress.say(f"{dropped} training rows dropped: they are also development or test rows")
    if not recipe.heads:  # which are there in seconds, and keep nothing
        work.mkdir(parents=True, exist_ok=True)  # now that all files have been read
    network = recipe.network if start is None else _shaped(recipe, start)
    json_text, embedding = (start.tokenizer, None) if start else _vocabulary(recipe, train, work)
    tokenizer = Tokenizer(json_text, network.max_tokens)
    try:
        config = network.config(tokenizer.vocab_size, len(labels), variant, multi_label=train.multi_label)
    except ValueError as error:
        raise TrainingError(f"recipe {recipe.name}: {error}") from None
    train = passages.add(recipe.data, root, train, tokenizer)
    read = [side for row in train.inputs() for side in sides(row)] if config.pairs == "apart" else train.inputs()
    cut = tokenizer.count_cut(read)
    overview = Overview(train, None if cross_validated else dev, labels, cut, network.max_tokens)
    progress.console.print(overview.table())
    targets = _targets(recipe, train, len(labels))
    unlabelled: list[Input] = []
    facts: dict[str, Any] = {"train_rows": len(train), "train_rows_dropped": dropped}
    facts |= {"cross_validated": True} if cross_validated else {}
    if start:
        facts["checkpoint" if recipe.start.checkpoint else "backbone"] = start.provenance
    if recipe.teacher:
        taught = teacher_labels.teach(recipe, root, work, train, dev, test, targets, progress)
        unlabelled, targets, facts["teacher"] = taught.rows, taught.targets, taught.facts

    ids = tokenizer.encode_rows(train.inputs())
    median, p99 = np.percentile([len(row) for row in ids], [50, 99])
    facts |= {"tokens_median": int(median), "tokens_p99": int(p99)}
    ids += tokenizer.encode_rows(unlabelled)
    dev_ids = tokenizer.encode_rows(dev.inputs())
    return Prepared(
        config, labels, json_text, embedding, ids, targets, train, dev, dev_ids, test, facts, unlabelled, start
    )


def _splits(recipe: Recipe, root: Path, start: Backbone | WarmStart | None) -> tuple[Splits, int]:
    """The rows of the task without those training rows that are also development or test rows, and how many those
    were; `dev` is the same object as `train` where the run cross-validates."""
    known = start.checkpoint.labels if isinstance(start, WarmStart) else None
    result = splits(recipe.data, root, known, hold_out=recipe.heads is None)
    if len(result.labels) < 2:
        raise TrainingError(
            f"{recipe.data.train}: only one class, {result.labels[0]!r}; a classifier needs at least two"
        )
    cross_validated = result.dev is result.train
    scored = [rows for rows in (None if cross_validated else result.dev, result.test) if rows]
    if recipe.data.both_orders:
        scored += [rows.swapped() for rows in scored]
    train = data.without(result.train, *scored)
    if train.multi_label:
        _ensure_heads(recipe)
    if cross_validated and train.counts(len(result.labels)).max() < 2:
        raise TrainingError(
            f"{recipe.data.train}: {len(train)} rows, and no class with two: nothing can be learned without a row that "
            "could judge it; add rows"
        )
    if not len(train):
        raise TrainingError(f"{recipe.data.train}: every training row is also a development or test row")
    dropped = len(result.train) - len(train)
    if recipe.data.both_orders:
        train = train.joined(train.swapped())
    return result._replace(train=train, dev=train if cross_validated else result.dev), dropped


def _ensure_heads(recipe: Recipe) -> None:
    """Raise TrainingError for what there isn't for several labels a text."""
    if recipe.heads is None:
        raise TrainingError(data.ONLY_HEADS)
    if recipe.data.balance:
        raise TrainingError(
            "--balance is for one label a text; of several, each has a threshold of its own, and evaluate says macro F1"
        )
    if recipe.data.described:
        raise TrainingError("--labels beside rows is for one label a text; of several leave it out")
    if recipe.data.metric in ("f1", "matthews"):
        raise TrainingError(
            f"metric {recipe.data.metric} is for one label a text; of several it is micro_f1 or macro_f1"
        )


def _targets(recipe: Recipe, train: Rows, n_class: int) -> np.ndarray:
    """What the labelled rows are to be answered with: distributions [N, m] float32."""
    plan = recipe.data
    targets = train.targets(n_class, plan.soft_share, recipe.optim.label_smoothing, plan.soft_temperature)
    if recipe.data.balance and not recipe.heads:  # eq. 24 is linear in targets: this weighs rows
        targets *= _weights(train.labels, n_class)[:, None]
    return targets


def _weights(labels: np.ndarray, n_class: int) -> np.ndarray:
    """Weights of rows [N] with which all classes weigh the same, 1 on average: float32."""
    counts = np.bincount(labels, minlength=n_class)
    result: np.ndarray = len(labels) / np.count_nonzero(counts) / counts[labels]
    return result.astype(np.float32)


def _start(recipe: Recipe, root: Path, variant: str) -> Backbone | WarmStart | None:
    """The backbone or the checkpoint that the recipe names."""
    if recipe.start.backbone:
        return backbone.read(recipe.start.backbone, root)
    if not recipe.start.checkpoint:
        return None
    start = warm_start.read(recipe.start.checkpoint, root)
    if variant != "proposed":
        raise TrainingError(f"a checkpoint is the proposed network; of {variant!r} there is none to go on from")
    if recipe.data.labels not in (None, [*start.checkpoint.labels]):
        raise TrainingError(
            f"data.labels are not those of the checkpoint, {', '.join(start.checkpoint.labels)}; leave them out"
        )
    if start.checkpoint.config.embedding == "int4+2" and recipe.optim.embedding != "frozen":
        raise TrainingError(f"the rows of its embedding can't leave their grid; add {FROZEN}")
    return start


def _shaped(recipe: Recipe, start: Backbone | WarmStart) -> Network:
    """The recipe's network in the shape of what it starts from, which it may repeat but not contradict; how much of a
    text it reads is its own, positions being a sinusoid of any length."""
    shape = start.shape
    if "max_tokens" in recipe.network.model_fields_set:
        shape = {**shape, "max_tokens": recipe.network.max_tokens}
    for name, value in shape.items():
        stated = getattr(recipe.network, name)
        if name in recipe.network.model_fields_set and stated != value:
            raise TrainingError(
                f"recipe {recipe.name}: network.{name} is {stated!r}, but that of its start, "
                f"{start.provenance['name']!r}, is {value!r}; leave it out"
            )
    return recipe.network.model_copy(update=shape)


def _vocabulary(recipe: Recipe, train: Rows, work: Path) -> tuple[str, np.ndarray | None]:
    """Tokenizer as JSON, and real embedding rows [V, D/2] where a pretrained encoder gives them (by PCA)."""
    if recipe.start.encoder is None:
        kept = work / "tokenizer.json"  # learning it again would give another one
        if not kept.exists():
            kept.write_text(train_wordpiece([*train.texts, *(train.pairs or [])], recipe.start.vocab_size))
        return kept.read_text(), None
    folder = locate(recipe.start.encoder, work.parent / "encoders")
    words, weights = vocabulary.of(folder), load_file(folder / "model.safetensors")
    embedding = next(tensor for name, tensor in weights.items() if name.endswith("word_embeddings.weight"))
    rows = embedding[words.rows].astype(np.float64)
    rows -= rows.mean(0)
    width = recipe.network.d_model // 2
    _, axes = np.linalg.eigh(rows.T @ rows)
    reduced = rows @ axes[:, ::-1][:, :width]
    if reduced.shape[1] < width:
        raise TrainingError(f"encoder {recipe.start.encoder!r} has {rows.shape[1]} dimensions, d_model / 2 is {width}")
    # half the size of the sinusoid's neighbourhood: inside [-1, 1], where eq. 9 lets gradients through
    return words.tokenizer, (0.5 * reduced / reduced.std()).astype(np.float32)
