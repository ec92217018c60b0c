"""
One training run, one way: recipe -> data -> network -> soft-routing loss -> evaluate -> export and verify.

Everything a run needs to go on after a kill lies in its work folder: the teacher's answers, the network with its
optimizers and random state after every evaluation, the best weights, and the log (one JSON line a group of steps). A
resumed run ends with the same weights as an unbroken one.
"""

import copy
import ctypes
import dataclasses
import datetime
import hashlib
import json
import math
import platform
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from safetensors.numpy import load_file

from model import export, teacher
from model.config import BEEConfig
from model.data import Rows, find_split, length_batches, pad, read_rows, sentences, split_rows
from model.embedding import quantize
from model.encoders import locate
from model.errors import TrainingError
from model.evaluate import evaluate_logits
from model.exits import DEFAULT_DELTA, softmax
from model.network import BEExformer, soft_routing_loss
from model.recipe import Recipe
from model.tokenizer import Tokenizer, train_wordpiece


@dataclasses.dataclass(frozen=True)
class Prepared:
    """Data as the loop wants it: rows of ids with target distributions [N, m] float32, and what they came from."""

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


class Show:
    """Progress for people: a bar with what matters beside it on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[beside]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None, beside="")

    def stage(self, name: str) -> teacher.Report:
        """Begin a stage; answers the callback that moves its bar."""
        self.bar.reset(self.task, description=name, total=None, beside="")
        said = time.monotonic()

        def report(done: int, total: int, beside: str) -> None:
            nonlocal said
            self.bar.update(self.task, completed=done, total=total, beside=beside)
            if not self.console.is_terminal and (time.monotonic() - said > 30 or done == total):
                said = time.monotonic()
                self.console.print(f"{name}: {done}/{total} {beside}", highlight=False, soft_wrap=True)

        return report

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)


# ---------------------------------------------------------------- data


def _splits(recipe: Recipe, root: Path) -> tuple[Rows, Rows, Rows | None, list[str]]:
    data = recipe.data
    path = root / data.train
    folder = path if path.is_dir() else None
    train_file = find_split(path, "train") if folder else path
    if train_file is None:
        raise TrainingError(f"{path} has no train file (train.csv, .tsv, .jsonl or .parquet)")
    train, labels = read_rows(train_file, data.columns, data.labels)
    if len(labels) < 2:
        raise TrainingError(f"{train_file}: only one class, {labels[0]!r}; a classifier needs at least two")

    def other(name: str | None, split: str) -> Rows | None:
        file = root / name if name else folder and find_split(folder, split)
        return read_rows(file, data.columns, labels)[0] if file else None

    dev, test = other(data.dev, "dev"), other(data.test, "test")
    if dev is None:
        train, dev = split_rows(train, 0.1, recipe.optim.seed)
    return train, dev, test, labels


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
    return ((1 - smoothing) * np.eye(n_class)[labels] + smoothing / n_class).astype(np.float32)


def _taught(
    recipe: Recipe, root: Path, work: Path, train: Rows, dev: Rows, targets: np.ndarray, show: Show
) -> tuple[list[str], np.ndarray, dict[str, Any]]:
    """Unlabelled texts, targets of all rows (labelled ones mixed with the teacher's answer), and provenance."""
    plan = recipe.teacher
    assert plan is not None
    if plan.unlabelled and train.pairs:
        raise TrainingError("unlabelled text is single sentences, this task has pairs; drop teacher.unlabelled")
    extra = sentences(root / plan.unlabelled, plan.unlabelled_rows, recipe.optim.seed) if plan.unlabelled else []
    dtype = getattr(torch, recipe.optim.precision)
    tutor = teacher.finetune(
        locate(plan.encoder, work.parent / "encoders"),
        train,
        targets.shape[1],
        work / "teacher",
        epochs=plan.epochs,
        learning_rate=plan.learning_rate,
        batch_size=plan.batch_size,
        dtype=dtype,
        seed=recipe.optim.seed,
        report=show.stage("teacher"),
    )

    def answers(name: str, texts: list[str], pairs: list[str] | None) -> np.ndarray:
        report = show.stage(f"teacher on {name}")
        return teacher.answer(tutor, texts, pairs, work / f"labels-{name}", dtype=dtype, report=report)

    score = float((answers("dev", dev.texts, dev.pairs).argmax(1) == dev.labels).mean())
    show.say(f"teacher {plan.encoder}: dev accuracy {score:.4f}")
    mixed = (1 - plan.share) * targets + plan.share * softmax(answers("train", train.texts, train.pairs))
    if extra:
        mixed = np.concatenate([mixed, softmax(answers("unlabelled", extra, None))])
    facts = {
        "encoder": plan.encoder,
        "dev_accuracy": score,
        "unlabelled": plan.unlabelled,
        "unlabelled_rows": len(extra),
    }
    return extra, mixed.astype(np.float32), facts


def prepare(recipe: Recipe, root: Path, work: Path, show: Show) -> Prepared:
    """Read and tokenize everything the run needs; with a teacher in the recipe, train and ask it first."""
    train, dev, test, labels = _splits(recipe, root)
    json_text, embedding = _vocabulary(recipe, train, work)
    tokenizer = Tokenizer(json_text, recipe.network.max_tokens)
    targets = _one_hot(train.labels, len(labels), recipe.optim.label_smoothing)
    extra: list[str] = []
    facts: dict[str, Any] = {"train_rows": len(train)}
    if recipe.teacher:
        extra, targets, facts["teacher"] = _taught(recipe, root, work, train, dev, targets, show)
    try:
        config = recipe.network.config(tokenizer.vocab_size, len(labels))
    except ValueError as error:
        raise TrainingError(f"recipe {recipe.name}: {error}") from None

    def encode(texts: list[str], pairs: list[str] | None) -> list[np.ndarray]:
        inputs = list(zip(texts, pairs, strict=True)) if pairs else texts
        return [np.array(e.ids, dtype=np.int32) for e in tokenizer.inner.encode_batch(inputs)]

    ids = encode(train.texts, train.pairs)
    median, p99 = np.percentile([len(row) for row in ids], [50, 99])
    facts |= {"tokens_median": int(median), "tokens_p99": int(p99)}
    ids += encode(extra, None)
    return Prepared(
        config, labels, json_text, embedding, ids, targets, train, dev, encode(dev.texts, dev.pairs), test, facts
    )


# ---------------------------------------------------------------- the loop


class Trainer:
    """Network, optimizers and position of a run; `state` and `restore` are all that a resumed run needs."""

    def __init__(self, recipe: Recipe, data: Prepared) -> None:
        self.recipe, self.data = recipe, data
        plan = recipe.optim
        torch.manual_seed(plan.seed)
        self.network = BEExformer(data.config, plan.dropout, getattr(torch, plan.precision))
        embedding = self.network.embedding
        if data.embedding is not None:
            with torch.no_grad():
                embedding.weight.copy_(torch.from_numpy(data.embedding))
        body = [p for name, p in self.network.named_parameters() if not name.startswith("embedding.")]
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(body, lr=plan.learning_rate, fused=True)]
        if plan.embedding == "sparse":
            embedding.sparse = True  # a batch touches a hundredth of the vocabulary
            self.optimizers.append(torch.optim.SparseAdam(embedding.parameters(), lr=plan.learning_rate))
        else:
            embedding.requires_grad_(False)
        self.plateaus = [
            torch.optim.lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=1, min_lr=plan.min_learning_rate)
            for o in self.optimizers
        ]
        self.cascade = torch.compile(self.network.cascade, dynamic=True) if plan.compile else self.network.cascade
        self.lengths = np.array([len(row) for row in data.ids])
        self.steps_per_epoch = math.ceil(len(data.ids) / plan.batch_size)
        self.epoch = self.position = 0  # position: batches of this epoch that are done
        self.average: BEExformer | None = None
        self.averaged = 0  # evaluations in the average
        self.best, self.waited, self.tokens, self.seconds = -math.inf, 0, 0, 0.0

    @property
    def step(self) -> int:
        return self.epoch * self.steps_per_epoch + self.position

    @property
    def steps(self) -> int:
        return self.recipe.optim.epochs * self.steps_per_epoch

    def batches(self) -> list[np.ndarray]:
        """The batches of this epoch still to come; their order is a function of seed and epoch alone."""
        plan = self.recipe.optim
        return length_batches(self.lengths, plan.batch_size, np.random.default_rng([plan.seed, self.epoch]))[
            self.position :
        ]

    def set_rate(self) -> float:
        """Learning rate of this step: linear warm-up and decay, or whatever the plateaus have left."""
        plan = self.recipe.optim
        rising = min(1.0, (self.step + 1) / (plan.warmup * self.steps)) if plan.warmup else 1.0
        if plan.schedule == "linear":
            falling = max(plan.learning_rate * (1 - self.step / self.steps), plan.min_learning_rate)
            for optimizer in self.optimizers:
                optimizer.param_groups[0]["lr"] = rising * falling
        return float(self.optimizers[0].param_groups[0]["lr"])

    def train_step(self, batch: np.ndarray) -> float:
        """One batch; answers its loss in nats."""
        padded, lengths = pad([self.data.ids[i] for i in batch])
        h = self.network.embed(torch.from_numpy(padded))
        loss = soft_routing_loss(self.cascade(h, torch.from_numpy(lengths)), torch.from_numpy(self.data.targets[batch]))
        value = loss.item()
        if not math.isfinite(value):
            raise TrainingError(f"the loss is {value} at step {self.step}; lower optim.learning_rate and start afresh")
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        for _, layer in self.network.binary_layers():
            layer.clamp_latent()
        self.position += 1
        self.tokens += int(lengths.sum())
        return value

    def candidate(self) -> BEExformer:
        """The network that would be exported now: the trained one, or from `average_from` on the running mean of its
        real-valued weights over the evaluations. Latent weights jitter across zero; their mean's signs don't."""
        plan = self.recipe.optim
        if plan.average_from is None or self.step < plan.average_from * self.steps:
            return self.network
        if self.average is None:
            self.average, self.averaged = copy.deepcopy(self.network), 0
        self.averaged += 1
        with torch.no_grad():
            for mean, new in zip(self.average.parameters(), self.network.parameters(), strict=True):
                mean.add_((new - mean) / self.averaged)
        return self.average

    def evaluate(self, network: BEExformer) -> dict[str, Any]:
        """Dev rows through a network as it will be exported, at the default delta and at full depth."""
        with _as_exported(network):
            logits = export.network_logits(network, self.data.dev_ids)
        tokens = np.array([len(row) for row in self.data.dev_ids])
        return evaluate_logits(
            self.data.config, logits, tokens, self.data.dev.labels, self.recipe.data.metric, DEFAULT_DELTA
        )

    def state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "average": self.average and self.average.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "plateaus": [p.state_dict() for p in self.plateaus],
            "rng": torch.get_rng_state(),
            "position": {key: getattr(self, key) for key in _POSITION},
            "recipe": self.recipe.model_dump_json(),
        }

    def restore(self, state: dict[str, Any], folder: Path) -> None:
        if state["recipe"] != self.recipe.model_dump_json():
            raise TrainingError(f"{folder} holds a run of another recipe; remove the folder or give another --work")
        self.network.load_state_dict(state["network"])
        if state["average"] is not None:
            self.average = copy.deepcopy(self.network)
            self.average.load_state_dict(state["average"])
        for ours, saved in ((self.optimizers, state["optimizers"]), (self.plateaus, state["plateaus"])):
            one: Any
            for one, its in zip(ours, saved, strict=True):
                one.load_state_dict(its)
        torch.set_rng_state(state["rng"])
        for key in _POSITION:
            setattr(self, key, state["position"][key])


_POSITION = ("epoch", "position", "averaged", "best", "waited", "tokens", "seconds")


class _as_exported:
    """While it lasts the network has the int8 embedding rows and float32 products of the exported file."""

    def __init__(self, network: BEExformer) -> None:
        self.network = network

    def __enter__(self) -> None:
        weight = self.network.embedding.weight
        self.real = weight.detach().clone()
        self.precision: dict[Any, Any] = {
            module: module.precision for module in self.network.modules() if hasattr(module, "precision")
        }
        with torch.no_grad():
            if self.network.config.binary:
                rows, scale = quantize(weight.numpy())
                weight.copy_(torch.from_numpy(rows * scale[:, None]))
        for module in self.precision:
            module.precision = torch.float32
        self.network.eval()

    def __exit__(self, *exception: object) -> None:
        with torch.no_grad():
            self.network.embedding.weight.copy_(self.real)
        for module, precision in self.precision.items():
            module.precision = precision
        self.network.train()


def fit(trainer: Trainer, work: Path, show: Show) -> None:
    """Train until the last epoch or until patience ends; the weights with the best dev score are in `best.pt`."""
    plan = trainer.recipe.optim
    saved, best = work / "state.pt", work / "best.pt"
    if saved.exists():
        trainer.restore(torch.load(saved, weights_only=True), work)
        show.say(f"resumed at step {trainer.step} of {trainer.steps}")
    report = show.stage("training")
    every = math.ceil(trainer.steps_per_epoch / plan.evaluations)
    losses: list[float] = []
    since, tokens, score = time.monotonic(), trainer.tokens, trainer.best
    trainer.network.train()
    with (work / "log.jsonl").open("a", buffering=1) as log:
        while trainer.epoch < plan.epochs and trainer.waited < plan.patience:
            total = running = 0.0
            count = 0
            for batch in trainer.batches():
                rate = trainer.set_rate()
                losses.append(trainer.train_step(batch))
                total, count = total + losses[-1], count + 1
                running = float(np.mean(losses[-plan.log_steps :]))
                report(trainer.step, trainer.steps, f"loss {running:.4f} best {max(score, trainer.best):.4f}")
                if trainer.step % plan.log_steps == 0:
                    spent = time.monotonic() - since
                    line = {
                        "step": trainer.step,
                        "epoch": trainer.epoch + 1,
                        "loss": round(running, 5),
                        "learning_rate": rate,
                        "tokens_per_second": round((trainer.tokens - tokens) / spent),
                    }
                    log.write(json.dumps(line) + "\n")
                    trainer.seconds += spent
                    since, tokens, losses = time.monotonic(), trainer.tokens, losses[-plan.log_steps :]
                if trainer.position % every == 0 or trainer.position == trainer.steps_per_epoch:
                    candidate = trainer.candidate()
                    found = trainer.evaluate(candidate)
                    score = found["score"]
                    if plan.schedule == "plateau":
                        for plateau in trainer.plateaus:
                            plateau.step(total / count)
                    total, count = 0.0, 0
                    better = score > trainer.best
                    trainer.waited = 0 if better else trainer.waited + 1
                    if better:
                        trainer.best = score
                        _save(candidate.state_dict(), best)
                    short = {key: found[key] for key in ("score", "full_depth_score", "flops_saved_ratio", "exits")}
                    short["per_exit"] = [round(line["score"], 4) for line in found["per_exit"]]
                    log.write(json.dumps({"step": trainer.step, "dev": short, "best": trainer.best}) + "\n")
                    show.say(
                        f"step {trainer.step}: dev {score:.4f} at full depth {found['full_depth_score']:.4f}, "
                        f"FLOPs saved {found['flops_saved_ratio']:.1%}, exits {found['exits']}{' *' if better else ''}"
                    )
                    trainer.seconds += time.monotonic() - since
                    since = time.monotonic()
                    if trainer.position == trainer.steps_per_epoch:
                        trainer.epoch, trainer.position = trainer.epoch + 1, 0
                    _save(trainer.state(), saved)
                    if trainer.waited >= plan.patience:
                        show.say(f"no better score in {plan.patience} evaluations: stopped early")
                        break


def _save(state: dict[str, Any], path: Path) -> None:
    partial = path.with_suffix(".partial")
    torch.save(state, partial)
    partial.rename(path)


def keep_memory() -> None:
    """Ask glibc to keep freed memory: by default it returns large blocks to the kernel and page-faults them back in,
    every step anew. Nothing happens where the C library is another one."""
    if sys.platform == "linux" and platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(-3, 1 << 30)  # M_MMAP_THRESHOLD
        libc.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD


def run(recipe: Recipe, root: Path, out: Path, work: Path, console: Console) -> dict[str, Any]:
    """Train `recipe` on data under `root`; export to `out`. Answers the content of evaluation.json.

    `work` keeps the run's progress; a second call with the same arguments goes on where the first one ended.
    """
    keep_memory()
    work.mkdir(parents=True, exist_ok=True)
    show = Show(console)
    with show.bar:
        data = prepare(recipe, root, work, show)
        trainer = Trainer(recipe, data)
        show.say(
            f"{recipe.name}: {len(data.ids)} rows, {trainer.lengths.sum()} tokens an epoch, "
            f"{sum(p.numel() for p in trainer.network.parameters())} parameters"
        )
        fit(trainer, work, show)
        if recipe.finish:
            labelled = dataclasses.replace(
                data, ids=data.ids[: len(data.train)], targets=data.targets[: len(data.train)]
            )
            finisher = Trainer(recipe.finishing(), labelled)
            finisher.network.load_state_dict(trainer.network.state_dict())
            finisher.tokens, finisher.seconds = trainer.tokens, trainer.seconds
            trainer, work = finisher, work / "finish"
            work.mkdir(exist_ok=True)
            fit(trainer, work, show)
        trainer.network.load_state_dict(torch.load(work / "best.pt", weights_only=True))
        found = trainer.evaluate(trainer.network)
        show.say(f"best network: dev {found['score']:.4f}, at full depth {found['full_depth_score']:.4f}")
        if not recipe.network.binary or recipe.network.slfn != "depth":
            show.say("this variant is there to be compared with: nothing to pack, no checkpoint written")
            return {"dev": found}
        evaluation, parity = export.finish(
            trainer.network.eval(),
            name=recipe.name,
            labels=data.labels,
            tokenizer=data.tokenizer,
            metric=recipe.data.metric,
            dev=data.dev,
            test=data.test,
            provenance=_provenance(recipe, trainer),
            licence=recipe.data.licence,
            out=out,
        )
        show.say(f"torch and engine on dev: {parity}")
        show.say(f"checkpoint written to {out}")
        return evaluation


def _provenance(recipe: Recipe, trainer: Trainer) -> dict[str, Any]:
    """Where a checkpoint comes from, JSON-ready, for evaluation.json and the model card."""
    digest = hashlib.sha256()
    for text, label in zip(trainer.data.train.texts, trainer.data.train.labels, strict=True):
        digest.update(f"{text}\t{label}\n".encode())
    return {
        **trainer.data.facts,
        "data": recipe.data.train,
        "data_sha256": digest.hexdigest(),
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
        "seed": recipe.optim.seed,
        "tokens": trainer.tokens,
        "seconds": round(trainer.seconds),
        "machine": f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}",
        "recipe": recipe.model_dump(),
    }


def _commit() -> str:
    """Of the working folder; "unknown" where there is no repository, or no git, as in a container."""
    head = ["git", "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
