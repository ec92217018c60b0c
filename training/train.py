"""
One training run, one way: recipe -> data -> network -> soft-routing loss -> evaluate -> export and verify -> record.

What all variants and seeds of a recipe share lies in its work folder (`training.prepare`); each run has its own in
there, `<variant>-<seed>`: what it goes on from after a kill (`training.trainer`) and, in the end, the record.
"""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from beexformer.model import checkpoint
from beexformer.model.errors import TrainingError
from beexformer.training import device, examples, export, frozen, malloc, provenance, record
from beexformer.training.conclusion import compared, conclude
from beexformer.training.network import BEExformer
from beexformer.training.prepare import Prepared, prepare
from beexformer.training.progress import RunProgress
from beexformer.training.recipe import VARIANTS, Recipe
from beexformer.training.record import Record
from beexformer.training.trainer import Trainer

CHECKING, COMPARING = frozen.CHECKING, "comparing with TF-IDF"
FULL_PRECISION_OF = {"proposed": "fp", "wee": "wee-fp"}
"""Binary variants and the full-precision ones that they start from and follow."""


@dataclasses.dataclass(frozen=True)
class _Run:
    """Where a run keeps its progress, whom it tells of it, and on what it runs."""

    work: Path
    progress: RunProgress
    device: torch.device

    def own(self, variant: str, recipe: Recipe) -> Path:
        """The folder of one variant and seed."""
        return self.work / f"{variant}-{recipe.optim.seed}"

    def trained(self, recipe: Recipe, data: Prepared, variant: str, counterpart: BEExformer | None) -> Trainer:
        """The trainer of a recipe at the end of its schedule."""
        own = self.own(variant, recipe)
        own.mkdir(parents=True, exist_ok=True)
        trainer = Trainer(recipe, data, counterpart, self.device)
        self.progress.say(
            f"{recipe.name}, {variant}, seed {recipe.optim.seed}: {len(data.ids)} rows, "
            f"{trainer.feed.tokens_of_an_epoch} tokens an epoch, pads counted, "
            f"{sum(p.numel() for p in trainer.network.parameters())} parameters, on {device.describe(self.device)}"
        )
        trainer.fit(own, self.progress)
        return trainer

    def compared(
        self, recipe: Recipe, data: Prepared, variant: str, counterpart: BEExformer | None = None
    ) -> tuple[dict[str, Any], BEExformer]:
        """What a network that is not exported is worth on dev, and the network; it leaves a record."""
        trainer = self.trained(recipe, data, variant, counterpart)
        logits, tokens = trainer.logits(), np.array([len(row) for row in data.dev_ids])
        result = trainer.evaluate(logits)
        self.progress.say(f"{variant}: dev {result['score']:.4f}, at full depth {result['full_depth_score']:.4f}")
        made = _record(trainer, variant, logits, tokens, _provenance(trainer))
        record.write(made, self.own(variant, recipe) / record.FILE)
        return result, trainer.network

    def exported(self, recipe: Recipe, data: Prepared, out: Path, counterpart: BEExformer | None) -> dict[str, Any]:
        """Train the proposed network and write its checkpoint and its record; answers the content of
        evaluation.json."""
        variant = "proposed"
        trainer = self.trained(recipe, data, variant, counterpart)
        facts = _provenance(trainer)

        def recorded(logits: np.ndarray, tokens: np.ndarray) -> None:
            record.write(_record(trainer, variant, logits, tokens, facts), self.own(variant, recipe) / record.FILE)

        self.progress.stage(CHECKING)
        evaluation, parity = export.calibrate_and_export(
            trainer.network.cpu().eval(),
            name=recipe.name,
            labels=data.labels,
            tokenizer=data.tokenizer,
            metric=recipe.data.metric,
            dev=data.dev,
            test=data.test,
            provenance=facts,
            licence=recipe.data.licence,
            out=out,
            options=recipe.exit_options,
            on_dev=recorded,
        )
        self.progress.say(f"torch and engine on dev: {parity}")
        _written(recipe, data, out, self.progress)
        _conclude(data, evaluation, out, self.progress)
        return evaluation


def run(
    recipe: Recipe,
    root: Path,
    out: Path | None,
    work: Path,
    console: Console,
    variant: str = "proposed",
    on: str = "auto",
) -> dict[str, Any]:
    """Train `variant` of `recipe` on data under `root`, on a device; export to `out` if it is the proposed one. Answers
    the content of evaluation.json, or {"dev": what the network is worth} of a variant that is there to be compared
    with.

    `work` keeps the run's progress; a second call with the same arguments goes on where the first one ended.
    """
    if variant not in VARIANTS:
        raise TrainingError(f"unknown variant {variant!r}; known are {', '.join(VARIANTS)}")
    packed = variant == "proposed" and recipe.network.slfn == "depth"
    if packed and out is None:
        raise TrainingError("say with --out where the checkpoint is to be written")
    if out and packed:  # now, not after hours of training
        checkpoint.ensure_writable(out)
    malloc.keep_freed()
    progress = RunProgress(console)
    with progress.bar:
        data = prepare(recipe, root, work, progress, variant)
        if phases := _phases(recipe, data):
            progress.plan(phases)
        if recipe.heads:
            return _heads(recipe, data, out, progress, variant)
        this = _Run(work, progress, device.choose(on))
        counterpart = None
        if recipe.full_precision and data.config.binary:
            full = dataclasses.replace(data, config=dataclasses.replace(data.config, binary=False))
            _, counterpart = this.compared(recipe.for_full_precision(), full, FULL_PRECISION_OF[variant])
        if not packed:
            plan = recipe.for_full_precision() if recipe.full_precision and not data.config.binary else recipe
            result, _ = this.compared(plan, data, variant, counterpart)
            progress.say("this network is there to be compared with: nothing to pack, no checkpoint written")
            return {"dev": result}
        assert out is not None
        return this.exported(recipe, data, out, counterpart)


def _heads(recipe: Recipe, data: Prepared, out: Path | None, progress: RunProgress, variant: str) -> dict[str, Any]:
    if variant != "proposed" or out is None:
        raise TrainingError(f"[heads] makes the proposed network alone; there is no {variant!r} of it")
    evaluation = frozen.export_heads(recipe, data, out, progress)
    _written(recipe, data, out, progress)
    _conclude(data, evaluation, out, progress)
    return evaluation


def _phases(recipe: Recipe, data: Prepared) -> dict[str, float]:
    """The phases of an owner's run with about the seconds of each on a core with AVX-512; none of a run that a recipe
    file describes, whose stages are several and depend on what is there already."""
    if recipe.teacher or recipe.full_precision or recipe.second_stage:
        return {}
    tokens, m = sum(map(len, data.ids)), len(data.labels)
    words = {COMPARING: 2 + 4e-5 * len(data.train) * m}
    if recipe.heads:
        fitting = 2 + 2e-5 * len(data.train) * m
        wide = (data.config.d_model / 384) ** 2
        reading, fitting = 0.2 + 3e-5 * wide * tokens, wide * fitting
        return {frozen.READING: reading, frozen.LEARNING: fitting, CHECKING: 5.0 * wide, **words}
    return {"training": recipe.optim.epochs * 1e-3 * tokens, CHECKING: 4.0, **words}


def _conclude(data: Prepared, evaluation: dict[str, Any], out: Path, progress: RunProgress) -> None:
    """What the run came to, beside what is simpler; the bar's last phase, and its end."""
    progress.stage(COMPARING)
    said = compared(data.labels, data.train, data.dev, evaluation["dev"])
    progress.bar.stop()
    conclude(progress.console, data.labels, said, evaluation, out)


def _written(recipe: Recipe, data: Prepared, out: Path, progress: RunProgress) -> None:
    progress.say(f"checkpoint written to {out}")
    if recipe.data.examples:
        progress.say(f"{examples.store(out, data.train)} of your texts are in it, for everyone who opens the page")


def _record(trainer: Trainer, variant: str, logits: np.ndarray, tokens: np.ndarray, made: dict[str, Any]) -> Record:
    recipe, data = trainer.recipe, trainer.data
    meta = {
        "task": recipe.name,
        "variant": variant,
        "seed": recipe.optim.seed,
        "metric": recipe.data.metric,
        "class_names": data.labels,
        "config": data.config.to_dict(),
        "dev_sha256": data.dev.sha256(),
        **{key: made[key] for key in ("commit", "date", "tokens", "seconds", "recipe")},
    }
    return Record(meta, logits, tokens, data.dev.labels)


def _provenance(trainer: Trainer) -> dict[str, Any]:
    products = f"products in {str(trainer.network.precision).removeprefix('torch.')}"
    how = f"{device.describe(trainer.loop.device)}, {products}"
    tokens, seconds = sum(loop.tokens for loop in trainer.loops), sum(loop.seconds for loop in trainer.loops)
    return provenance.of(trainer.recipe, trainer.data, tokens, seconds, how)
