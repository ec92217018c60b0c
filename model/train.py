"""
One training run, one way: recipe -> data -> network -> soft-routing loss -> evaluate -> export and verify -> record.

What all variants and seeds of a recipe share lies in its work folder (`model.prepare`); each run has its own in there,
`<variant>-<seed>`: what it goes on from after a kill (`model.trainer`) and, in the end, the record.
"""

import dataclasses
import datetime
import platform
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from model import checkpoint, export, precision, record
from model.errors import TrainingError
from model.network import BEExformer
from model.prepare import Prepared, prepare
from model.recipe import VARIANTS, Recipe
from model.record import Record
from model.show import Show
from model.trainer import STATE, Trainer, fit, keep_memory

TWIN_OF = {"proposed": "fp", "wee": "wee-fp"}
"""Binary variants and the full-precision ones that they start from and follow."""


def run(
    recipe: Recipe, root: Path, out: Path | None, work: Path, console: Console, variant: str = "proposed"
) -> dict[str, Any]:
    """Train `variant` of `recipe` on data under `root`; export to `out` if it is the proposed one. Answers the content
    of evaluation.json, or {"dev": what the network is worth} of a variant that is there to be compared with.

    `work` keeps the run's progress; a second call with the same arguments goes on where the first one ended.
    """
    if variant not in VARIANTS:
        raise TrainingError(f"unknown variant {variant!r}; known are {', '.join(VARIANTS)}")
    packed = variant == "proposed" and recipe.network.slfn == "depth"
    if packed and out is None:
        raise TrainingError("say with --out where the checkpoint is to be written")
    if out and packed:  # now, not after hours of training
        checkpoint.claim(out)
    keep_memory()
    work.mkdir(parents=True, exist_ok=True)
    show = Show(console)
    with show.bar:
        data = prepare(recipe, root, work, show, variant)
        twin = None
        if recipe.twin and data.config.binary:
            full = dataclasses.replace(data, config=dataclasses.replace(data.config, binary=False))
            twin = _twin(recipe.twinned(), full, work, TWIN_OF[variant], show)
        if not packed:
            plan = recipe.twinned() if recipe.twin and not data.config.binary else recipe
            found = _compared(plan, data, work, variant, show, twin)
            show.say("this network is there to be compared with: nothing to pack, no checkpoint written")
            return {"dev": found}
        assert out is not None
        trainer = _trained(recipe, data, work, variant, show, twin)
        made = _provenance(recipe, trainer)

        def recorded(logits: np.ndarray, tokens: np.ndarray) -> None:
            record.write(_record(trainer, variant, logits, tokens, made), _own(work, variant, recipe) / record.FILE)

        evaluation, parity = export.finish(
            trainer.network.eval(),
            name=recipe.name,
            labels=data.labels,
            tokenizer=data.tokenizer,
            metric=recipe.data.metric,
            dev=data.dev,
            test=data.test,
            provenance=made,
            licence=recipe.data.licence,
            out=out,
            on_dev=recorded,
        )
        show.say(f"torch and engine on dev: {parity}")
        show.say(f"checkpoint written to {out}")
        _say(show, variant, evaluation["dev"])
        return evaluation


def _say(show: Show, variant: str, dev: dict[str, Any]) -> None:
    show.say(f"{variant}: dev {dev['score']:.4f}, at full depth {dev['full_depth_score']:.4f}")


def _own(work: Path, variant: str, recipe: Recipe) -> Path:
    return work / f"{variant}-{recipe.optim.seed}"


def _trained(
    recipe: Recipe, data: Prepared, work: Path, variant: str, show: Show, twin: BEExformer | None = None
) -> Trainer:
    """Both phases of a recipe, or what is left of them; the trainer's network has the best weights of either."""
    own = _own(work, variant, recipe)
    own.mkdir(parents=True, exist_ok=True)
    # without [finish], whose change loses nothing of the first phase
    trainer = Trainer(recipe.model_copy(update={"finish": None}), data, twin)
    show.say(
        f"{recipe.name}, {variant}, seed {recipe.optim.seed}: {len(data.ids)} rows, {trainer.lengths.sum()} tokens "
        f"an epoch, {sum(p.numel() for p in trainer.network.parameters())} parameters"
    )
    fit(trainer, own, show)
    best = own / "best.pt"
    if recipe.finish:
        labelled = dataclasses.replace(data, ids=data.ids[: len(data.train)], targets=data.targets[: len(data.train)])
        finisher = Trainer(recipe.finishing(), labelled, twin)
        finisher.network.load_state_dict(trainer.network.state_dict())
        finisher.best, finisher.tokens, finisher.seconds = trainer.best, trainer.tokens, trainer.seconds
        trainer, last = finisher, own / "finish" / "best.pt"
        last.parent.mkdir(exist_ok=True)
        fit(trainer, last.parent, show)
        best = last if last.exists() else best
    trainer.network.load_state_dict(torch.load(best, weights_only=True))
    return trainer


def _twin(recipe: Recipe, data: Prepared, work: Path, variant: str, show: Show) -> BEExformer:
    """The full-precision network that bits start from and follow: the last one. The best on dev, which its record has,
    may be one of halfway that a few hundred rows took a liking to; its cross-entropy is not the lowest."""
    _compared(recipe, data, work, variant, show)
    network = BEExformer(data.config, precision=precision.of(recipe.optim.precision))
    network.load_state_dict(torch.load(_own(work, variant, recipe) / STATE, weights_only=True)["network"])
    return network


def _compared(
    recipe: Recipe, data: Prepared, work: Path, variant: str, show: Show, twin: BEExformer | None = None
) -> dict[str, Any]:
    """What a network that is not exported is worth on dev; it leaves a record."""
    trainer = _trained(recipe, data, work, variant, show, twin)
    logits, tokens = trainer.logits(trainer.network), np.array([len(row) for row in data.dev_ids])
    found = trainer.evaluate(logits)
    _say(show, variant, found)
    made = _record(trainer, variant, logits, tokens, _provenance(recipe, trainer))
    record.write(made, _own(work, variant, recipe) / record.FILE)
    return found


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


def _provenance(recipe: Recipe, trainer: Trainer) -> dict[str, Any]:
    """Where a network comes from, JSON-ready, for evaluation.json, the model card and the record."""
    products = f"products in {str(trainer.network.precision).removeprefix('torch.')}"
    return {
        **trainer.data.facts,
        "data": recipe.data.train,
        "data_sha256": trainer.data.train.sha256(),
        "commit": _commit(),
        "date": datetime.date.today().isoformat(),
        "seed": recipe.optim.seed,
        "tokens": trainer.tokens,
        "seconds": round(trainer.seconds),
        "machine": f"{torch.get_num_threads()} threads, {platform.machine()}, torch {torch.__version__}, {products}",
        "recipe": recipe.model_dump(),
    }


def _commit() -> str:
    """Of the working folder; "unknown" where there is no repository, or no git, as in a container."""
    head = ["git", "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(head, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
