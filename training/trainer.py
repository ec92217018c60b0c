"""
A task's network and how it is trained: what it starts from, what it learns from, and what it is worth on dev. The loop
itself is training/loop.py.

The weights are those at the end of the schedule: no evaluation on dev chooses among them.
"""

import dataclasses
import json
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from beexformer.model.config import DEFAULT_DELTA
from beexformer.model.errors import TrainingError
from beexformer.training import calibrate, device, export, full_precision, precision, resumable, thresholds
from beexformer.training.backbone import Backbone
from beexformer.training.batches import Batch, calibration_batches
from beexformer.training.buckets import Feed
from beexformer.training.evaluate import METRICS, answering, at_delta
from beexformer.training.loop import Budget, Loop
from beexformer.training.network import BEExformer
from beexformer.training.objectives import Task
from beexformer.training.prepare import Prepared
from beexformer.training.progress import RunProgress
from beexformer.training.recipe import Optim, Recipe, SecondStage
from beexformer.training.warm_start import WarmStart

STATE, SECOND_STATE = "state.pt", "second_stage.pt"
"""In a run's folder: all that either phase needs to go on, after its last step too."""


class Trainer:
    """The network of a recipe, and the loop that trains it on `on`. Bits with a `counterpart`, a trained full-precision
    network of their shape, start from it and follow it."""

    def __init__(self, recipe: Recipe, data: Prepared, counterpart: BEExformer | None, on: torch.device) -> None:
        self.recipe, self.data = recipe, data
        plan = recipe.optim
        torch.manual_seed(plan.seed)
        products = device.products(on) if plan.precision == "auto" else precision.of(plan.precision)
        self.network = BEExformer(data.config, plan.dropout, products)
        self.feed = _feed(recipe, data, plan.tokens_a_step, on, labelled_alone=False)
        self.shift = _to_labelled_shares(data, self.feed) if recipe.data.class_shares == "labelled" else None
        self._start(counterpart)
        self.network.embedding.requires_grad_(plan.embedding == "learned")
        self.network.to(on).train()
        states = recipe.full_precision.states if recipe.full_precision else 0.0
        targets = torch.from_numpy(data.targets).to(on)
        self.objective = Task(self.network, targets, self.feed, counterpart.to(on) if counterpart else None, states)
        self.loop = self._loop(plan, self.feed, on)
        self.loops = [self.loop]

    def _loop(self, plan: Optim | SecondStage, feed: Feed, on: torch.device) -> Loop:
        optim = self.recipe.optim
        tokens = plan.epochs * feed.tokens_of_an_epoch
        budget = Budget(plan.learning_rate, tokens, warmup=optim.warmup, clip=optim.clip, compile=optim.compile)
        return Loop(self.objective, feed, budget, on)

    @torch.no_grad()
    def _start(self, counterpart: BEExformer | None) -> None:
        """Give the network what it starts from."""
        network, data = self.network, self.data
        if data.embedding is not None:
            network.embedding.weight.copy_(torch.from_numpy(data.embedding))
        binary = isinstance(data.start, Backbone) and data.start.binary
        if not network.config.binary or isinstance(data.start, WarmStart) or binary:
            if data.start:
                data.start.start(network)
            return
        real = counterpart
        if data.start and not counterpart:
            real = BEExformer(dataclasses.replace(network.config, binary=False), precision=network.precision)
            data.start.start(real)
        if real is None:
            return
        full_precision.start(network, real.cpu(), calibration_batches(_on_cpu(self.feed)))
        counts = np.bincount(np.concatenate(data.ids), minlength=network.config.vocab_size)
        network.fix_embedding(counts + 1.0)

    @cached_property
    def fingerprint(self) -> str:
        """What a run is made of; the state of another one is not resumed."""
        data, recipe = self.data, self.recipe.model_dump(exclude={"second_stage"})  # that changes nothing before it
        return json.dumps([recipe, data.config.to_dict(), data.facts, data.train.sha256(), data.dev.sha256()])

    def fit(self, folder: Path, progress: RunProgress) -> None:
        """Train to the end of the schedule, or go on where a run in `folder` ended."""
        resumable.run(self.loop, folder / STATE, self.fingerprint, progress, "training")
        if second := self.recipe.second_stage:
            on = self.loop.device
            feed = _feed(self.recipe, self.data, second.tokens_a_step, on, labelled_alone=True)
            loop = self._loop(second, feed, on)
            made_of = f"{self.fingerprint} {second.model_dump_json()}"
            resumable.run(loop, folder / SECOND_STATE, made_of, progress, "second stage")
            self.loops.append(loop)
        if self.data.config.binary:
            thresholds.settle(self.network, self.feed.calibration())
        if self.shift is not None:
            with torch.no_grad():
                for head in self.network.heads.values():
                    out: Any = head.out
                    out.bias.add_(self.shift.to(out.bias))

    def logits(self) -> np.ndarray:
        """Dev rows through every exit of the network as it will be exported, [N, exits, m] float32."""
        with export.as_exported(self.network):
            return export.network_logits(self.network, self.data.dev_ids)

    def evaluate(self, logits: np.ndarray) -> dict[str, Any]:
        """What dev logits are worth at the default delta, at full depth and at every exit, calibrated as exported ones
        will be: temperatures say where rows leave, a class bias with which answer."""
        config, labels, metric = self.data.config, self.data.dev.labels, self.recipe.data.metric
        may_answer = answering(config, self.recipe.exit_options)
        logits = calibrate.fit_what_pays(logits, labels, "per_exit", may_answer).of(logits)
        tokens = np.array([len(row) for row in self.data.dev_ids])
        by_exit = [float(METRICS[metric](labels, logits[:, i].argmax(-1))) for i in range(logits.shape[1])]
        return {
            **at_delta(config, logits, tokens, labels, metric, DEFAULT_DELTA),
            "full_depth_score": by_exit[-1],
            "per_exit": by_exit,
        }


def _feed(recipe: Recipe, data: Prepared, tokens_a_step: int, on: torch.device, *, labelled_alone: bool) -> Feed:
    """Rows as specs into one array of ids, without their [CLS] and their last [SEP]; the fifth column is the row.
    Labelled rows are repeated where the recipe says so."""
    inner = [row[1:-1] for row in data.ids]
    lengths = np.array([len(row) for row in inner])
    nothing = np.zeros_like(lengths)
    specs = np.stack([np.cumsum(lengths) - lengths, lengths, nothing, nothing, np.arange(len(inner))], 1)
    known = _labelled(data)
    labelled, others = specs[known], specs[~known]
    share = recipe.data.labelled_share
    times = max(1, round(share * len(others) / len(labelled))) if share else 1
    specs = labelled if labelled_alone else np.concatenate([np.tile(labelled, (times, 1)), others])
    specials = int(data.ids[0][0]), int(data.ids[0][-1])
    return Feed(np.concatenate(inner), lambda rng: specs, tokens_a_step, specials, on, recipe.optim.seed)


def _labelled(data: Prepared) -> np.ndarray:
    """Which rows have a label of their own, [N] bool; the others are a teacher's."""
    result = np.arange(len(data.ids)) < len(data.train)
    if data.train.stated is not None:
        result[: len(data.train)] = data.train.stated
    return result


def _to_labelled_shares(data: Prepared, feed: Feed) -> torch.Tensor:
    """By what the logits of every exit move [m] float64, so that scores suppose the labelled rows' class shares: the
    log of the ratio to those learned from, Bayes' rule for another prior (Saerens, Latinne, Decaestecker 2002). Raises
    TrainingError for a class that no labelled row has: it would never be answered."""
    learned = data.targets[feed.specs(np.random.default_rng(0))[:, 4]].mean(0, dtype=np.float64)
    labelled = data.targets[_labelled(data)].mean(0, dtype=np.float64)
    if not labelled.all():
        missing = data.labels[int(labelled.argmin())]
        raise TrainingError(f"no labelled row has class {missing!r}; add some, or leave data.class_shares out")
    return torch.from_numpy(np.log(labelled / learned))


def _on_cpu(feed: Feed) -> list[Batch]:
    """Some of its rows, for statistics."""
    return [(ids.cpu(), mask.cpu()) for ids, mask in feed.calibration()]
