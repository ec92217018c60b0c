"""
The loop of a run: network, optimizers and position, trained until the last epoch, evaluated and saved on the way.

After every evaluation the run's folder holds all that it needs to go on after a kill: the network with its optimizers
and random state, the best weights, and the log (one JSON line a group of steps). A resumed run ends with the same
weights as an unbroken one.
"""

import copy
import dataclasses
import json
import math
import time
from collections import deque
from functools import cached_property
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from torch import Tensor

from beexformer.model.config import DEFAULT_DELTA
from beexformer.model.errors import TrainingError
from beexformer.training import calibrate, export, precision, state
from beexformer.training.backbone import Backbone
from beexformer.training.batches import Batch, calibration_batches, length_batches, pad
from beexformer.training.evaluate import METRICS, at_delta
from beexformer.training.full_precision import FullPrecision, start
from beexformer.training.network import BEExformer, soft_routing_loss
from beexformer.training.prepare import Prepared
from beexformer.training.progress import RunProgress
from beexformer.training.recipe import Recipe
from beexformer.training.warm_start import WarmStart

STATE = "state.pt"
"""In a run's folder: all that it needs to go on, after its last step too."""


class Trainer:
    """Network, optimizers and position of a run; `state` and `restore` are all that a resumed run needs."""

    def __init__(self, recipe: Recipe, data: Prepared, full_precision: BEExformer | None = None) -> None:
        self.recipe, self.data = recipe, data
        plan = recipe.optim
        torch.manual_seed(plan.seed)
        self.network = BEExformer(data.config, plan.dropout, precision.of(plan.precision))
        self.lengths = np.array([len(row) for row in data.ids])
        self.epoch = self.position = 0  # position: batches of this epoch that are done
        self.full_precision = self._start(full_precision)
        embedding = self.network.embedding
        backbone = [p for name, p in self.network.named_parameters() if not name.startswith("embedding.")]
        self.optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(backbone, lr=plan.learning_rate, fused=True)]
        if plan.embedding == "sparse":
            embedding.sparse = True  # a batch touches a hundredth of the vocabulary
            self.optimizers.append(torch.optim.SparseAdam(embedding.parameters(), lr=plan.learning_rate))
        else:
            embedding.requires_grad_(False)
        self.plateaus = [
            torch.optim.lr_scheduler.ReduceLROnPlateau(o, factor=0.5, patience=1, min_lr=plan.min_learning_rate)
            for o in self.optimizers
        ]
        self.losses = torch.compile(self._losses, dynamic=True) if plan.compile else self._losses
        if self.full_precision and plan.compile:
            self.full_precision.compile(dynamic=True)
        self.steps_per_epoch = math.ceil(len(data.ids) / plan.batch_size)
        self.average: BEExformer | None = None
        self.averaged = 0  # evaluations in the average
        self.best, self.waited, self.tokens, self.seconds = -math.inf, 0, 0, 0.0

    @torch.no_grad()
    def _start(self, full_precision: BEExformer | None) -> FullPrecision | None:
        """Give the network what it starts from; with a trained full_precision, answer what it will follow."""
        network, data = self.network, self.data
        if data.embedding is not None:
            network.embedding.weight.copy_(torch.from_numpy(data.embedding))
        binary = isinstance(data.start, Backbone) and data.start.binary
        if not network.config.binary or isinstance(data.start, WarmStart) or binary:
            if data.start:
                data.start.start(network)
            return None
        real = full_precision
        if data.start and not full_precision:
            real = BEExformer(dataclasses.replace(network.config, binary=False), precision=network.precision)
            data.start.start(real)
        if real is None:
            return None
        text = calibration_batches(map(self._padded, self.batches()))
        start(network, real, text)
        counts = np.bincount(np.concatenate(data.ids), minlength=network.config.vocab_size)
        network.fix_embedding(counts + 1.0)
        return FullPrecision(full_precision, text) if full_precision else None

    @cached_property
    def fingerprint(self) -> str:
        """What a run is made of; the state of another one is not resumed."""
        data = self.data
        return json.dumps(
            [self.recipe.model_dump(), data.config.to_dict(), data.facts, data.train.sha256(), data.dev.sha256()]
        )

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

    def _losses(self, h: Tensor, mask: Tensor, targets: Tensor, wanted: list[Tensor] | None) -> Tensor:
        """Soft-routing loss, and with a counterpart how far the states are from `wanted`, its own."""
        states = self.network.states(h, mask)
        loss = soft_routing_loss(self.network.read(states, mask), targets)
        if self.full_precision and wanted:
            assert self.recipe.full_precision is not None
            loss = loss + self.recipe.full_precision.states * self.full_precision.distance(states, wanted, mask)
        return loss

    def _padded(self, batch: np.ndarray) -> Batch:
        return pad([self.data.ids[i] for i in batch])

    def train_step(self, batch: np.ndarray) -> float:
        """One batch; answers its loss in nats."""
        ids, mask = self._padded(batch)
        targets = torch.from_numpy(self.data.targets[batch])
        wanted = self.full_precision(ids, mask) if self.full_precision else None
        loss = self.losses(self.network.embed(ids), mask, targets, wanted)
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
        self.tokens += int(mask.sum())
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

    def logits(self, network: BEExformer) -> np.ndarray:
        """Dev rows through every exit of a network as it will be exported, [N, exits, m] float32."""
        with _as_exported(network):
            return export.network_logits(network, self.data.dev_ids)

    def evaluate(self, logits: np.ndarray) -> dict[str, Any]:
        """What dev logits are worth at the default delta, at full depth and at every exit, calibrated as exported ones
        will be: temperatures say where rows leave."""
        config, labels, metric = self.data.config, self.data.dev.labels, self.recipe.data.metric
        tokens = np.array([len(row) for row in self.data.dev_ids])
        by_exit = [float(METRICS[metric](labels, logits[:, i].argmax(-1))) for i in range(logits.shape[1])]
        return {
            **at_delta(
                config, logits / calibrate.temperatures(logits, labels)[:, None], tokens, labels, metric, DEFAULT_DELTA
            ),
            "full_depth_score": by_exit[-1],
            "per_exit": by_exit,
        }

    def state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "average": self.average and self.average.state_dict(),
            "optimizers": [o.state_dict() for o in self.optimizers],
            "plateaus": [p.state_dict() for p in self.plateaus],
            "rng": torch.get_rng_state(),
            "position": {key: getattr(self, key) for key in _POSITION},
        }

    def restore(self, state: dict[str, Any]) -> None:
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
    """While it lasts the network has the embedding rows and float32 products of the exported file."""

    def __init__(self, network: BEExformer) -> None:
        self.network = network

    def __enter__(self) -> None:
        weight = self.network.embedding.weight
        self.real = weight.detach().clone()
        self.precision: dict[Any, Any] = {
            module: module.precision for module in self.network.modules() if hasattr(module, "precision")
        }
        with torch.no_grad():
            weight.copy_(self.network.exported_embedding())
        for module in self.precision:
            module.precision = torch.float32
        self.network.eval()

    def __exit__(self, *exception: object) -> None:
        with torch.no_grad():
            self.network.embedding.weight.copy_(self.real)
        for module, dtype in self.precision.items():
            module.precision = dtype
        self.network.train()


class RunLog:
    """`log.jsonl` of a run: a JSON line a group of steps and an evaluation; and the losses and the time since those."""

    def __init__(self, trainer: Trainer, file: TextIO) -> None:
        self.trainer, self.file = trainer, file
        self.recent: deque[float] = deque(maxlen=trainer.recipe.optim.log_steps)  # losses of the last steps
        self.total, self.count = 0.0, 0  # of the losses since the last evaluation
        self.since, self.tokens = time.monotonic(), trainer.tokens

    def add(self, loss: float) -> float:
        """Take the loss of a step; answers the mean of the last `optim.log_steps`."""
        self.recent.append(loss)
        self.total, self.count = self.total + loss, self.count + 1
        return float(np.mean(self.recent))

    def mean_loss(self) -> float:
        """Of the steps since this was last asked, at an evaluation."""
        mean, self.total, self.count = self.total / self.count, 0.0, 0
        return mean

    def steps(self, loss: float, rate: float) -> None:
        """The line of a group of steps."""
        trainer = self.trainer
        line = {
            "step": trainer.step,
            "epoch": trainer.epoch + 1,
            "loss": round(loss, 5),
            "learning_rate": rate,
            "tokens_per_second": round((trainer.tokens - self.tokens) / (time.monotonic() - self.since)),
        }
        self.file.write(json.dumps(line) + "\n")
        self.lap()

    def evaluation(self, found: dict[str, Any]) -> None:
        """The line of an evaluation."""
        short = {key: found[key] for key in ("score", "full_depth_score", "flops_saved_ratio", "exits")}
        short["per_exit"] = [round(score, 4) for score in found["per_exit"]]
        line = {"step": self.trainer.step, "dev": short, "best": self.trainer.best}
        self.file.write(json.dumps(line) + "\n")
        self.lap()

    def lap(self) -> None:
        """Add the time since the last line to the run's."""
        now = time.monotonic()
        self.trainer.seconds += now - self.since
        self.since, self.tokens = now, self.trainer.tokens


def fit(trainer: Trainer, work: Path, progress: RunProgress) -> None:
    """Train until the last epoch or until patience ends; the weights with the best dev score are in `best.pt`."""
    plan, saved = trainer.recipe.optim, work / STATE
    if saved.exists():
        trainer.restore(state.load(saved, trainer.fingerprint))
        progress.say(f"resumed at step {trainer.step} of {trainer.steps}")
    report = progress.stage("training")
    every = math.ceil(trainer.steps_per_epoch / plan.evaluations)
    trainer.network.train()
    with (work / "log.jsonl").open("a", buffering=1) as file:
        log = RunLog(trainer, file)
        while trainer.epoch < plan.epochs and trainer.waited < plan.patience:
            for batch in trainer.batches():
                rate = trainer.set_rate()
                loss = log.add(trainer.train_step(batch))
                report(trainer.step, trainer.steps, f"loss {loss:.4f} best {trainer.best:.4f}")
                if trainer.step % plan.log_steps == 0:
                    log.steps(loss, rate)
                if trainer.position % every and trainer.position < trainer.steps_per_epoch:
                    continue
                _evaluate(trainer, log, work / "best.pt", progress)
                if trainer.position == trainer.steps_per_epoch:
                    trainer.epoch, trainer.position = trainer.epoch + 1, 0
                state.save(trainer.state(), saved, trainer.fingerprint)
                if trainer.waited >= plan.patience:
                    progress.say(f"no better score in {plan.patience} evaluations: stopped early")
                    break


def _evaluate(trainer: Trainer, log: RunLog, best: Path, progress: RunProgress) -> None:
    """Score on dev what would be exported now, and keep its weights in `best` where it is better than any before."""
    candidate = trainer.candidate()
    found = trainer.evaluate(trainer.logits(candidate))
    loss = log.mean_loss()
    if trainer.recipe.optim.schedule == "plateau":
        for plateau in trainer.plateaus:
            plateau.step(loss)
    better = found["score"] > trainer.best
    trainer.waited = 0 if better else trainer.waited + 1
    if better:
        trainer.best = found["score"]
        state.save(candidate.state_dict(), best)
    log.evaluation(found)
    progress.say(
        f"step {trainer.step}: dev {found['score']:.4f} at full depth {found['full_depth_score']:.4f}, "
        f"FLOPs saved {found['flops_saved_ratio']:.1%}, exits {found['exits']}{' *' if better else ''}"
    )
