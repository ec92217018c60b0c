"""
Baselines that are asked once: what each answered is kept beside the records of runs, and not computed again for the
same rows.
"""

import datetime
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import numpy as np

from beexformer.model.errors import TrainingError
from beexformer.model.folders import replacing
from beexformer.report import baselines
from beexformer.report.baselines import Answered
from beexformer.report.cited import PAPER
from beexformer.report.results import Baseline, Task
from beexformer.report.vectors import MiniLM, Model2Vec
from beexformer.training.data import Rows
from beexformer.training.progress import Report, RunProgress

NAMES = {
    "majority": "Majority class",
    "lexical": "TF-IDF + logistic regression",
    "static": "Model2Vec of MiniLM + logistic regression",
    "frozen": "MiniLM, frozen, + logistic regression",
    "encoder": "MiniLM, fine-tuned",
    "backbone": "1-bit backbone, frozen, + heads",
}
"""The last is ours: what owners' rows get in seconds."""
SHORT = {
    "lexical": "TF-IDF",
    "static": "Model2Vec",
    "frozen": "MiniLM, frozen",
    "encoder": "MiniLM, fine-tuned",
    "backbone": "1-bit backbone, frozen",
}
"""For pictures: of those that have weights."""

Way = Callable[[Report], Answered]


class Baselines:
    """`kept` is the folder of their answers; `work` keeps weights. Without `encoder` none is fine-tuned; without `anew`
    none is asked that hasn't been."""

    def __init__(self, kept: Path, work: Path, progress: RunProgress, encoder: bool = True, anew: bool = True) -> None:
        self.kept, self.work, self.progress, self.encoder, self.anew = kept, work, progress, encoder, anew

    def ask(self, task: Task) -> None:
        """All of them, on development rows and, where there are labelled ones, test rows."""
        others = [task.dev, *([task.test] if task.test else [])]
        on_test = baselines.majority(task.train, task.test) if task.test else None
        task.baselines["majority"] = Baseline(baselines.majority(task.train, task.dev), on_test)
        rows = baselines.digest(task.train, *others)[:12]
        for key, way in self._ways(task, others).items():
            try:
                path = self.kept / f"{task.name}-{key}-{rows}.npz"
                if not path.exists():
                    if not self.anew:
                        raise TrainingError("its answers are not kept, and none was asked anew")
                    _keep(path, way(self.progress.stage(f"{NAMES[key]}: {task.name}")))
                task.baselines[key] = _read(path)
            except TrainingError as error:
                task.baselines[key] = Baseline(None, note=str(error))

    def _ways(self, task: Task, others: list[Rows]) -> dict[str, Way]:
        train, metric, classes = task.train, task.metric, len(task.labels)

        def encoder(report: Report) -> Answered:
            if task.name not in PAPER:
                raise TrainingError("it is fine-tuned on the paper's tasks only")
            if not self.encoder:
                raise TrainingError("left out")
            return baselines.encoder(train, others, classes, self.work, report)

        return {
            "lexical": lambda report: baselines.lexical(train, others, metric, report),
            "static": lambda report: baselines.on_vectors(self._model2vec, train, others, metric, report),
            "frozen": lambda report: baselines.on_vectors(self._minilm, train, others, metric, report),
            "encoder": encoder,
            "backbone": lambda report: baselines.on_backbone(train, others, classes, report),
        }

    @cached_property
    def _minilm(self) -> MiniLM:
        return MiniLM(self.work / "encoders")

    @cached_property
    def _model2vec(self) -> Model2Vec:
        return Model2Vec(self.work / "encoders")


def _keep(path: Path, result: Answered) -> None:
    parts = dict(zip(("predicted", "on_test"), result.predicted, strict=False))
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as partial, partial.open("wb") as out:
        today = datetime.date.today().isoformat()
        np.savez_compressed(out, size_bytes=result.size_bytes, date=today, **parts)  # type: ignore[arg-type]


def _read(path: Path) -> Baseline:
    with np.load(path) as file:
        return Baseline(file["predicted"], file.get("on_test"), "", int(file["size_bytes"]), str(file["date"]))
