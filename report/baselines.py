"""
What a network must beat on the same rows: the majority class, TF-IDF, static vectors and a frozen encoder, each with
logistic regression, and a fine-tuned encoder; and the 1-bit backbone that ships, with nothing but heads.

Everything is learned and chosen on training rows; development and test rows are answered only.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy import sparse
from sklearn.base import BaseEstimator
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import make_scorer
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from beexformer.model.tokenizer import Tokenizer
from beexformer.report.sizes import packed_bytes
from beexformer.report.vectors import MiniLM, Model2Vec, features
from beexformer.training import backbone, heads, mean_states, pooling, precision, teacher
from beexformer.training.data import Rows
from beexformer.training.encoders import locate
from beexformer.training.evaluate import METRICS
from beexformer.training.lexical import Words
from beexformer.training.progress import Report

STRENGTHS = (0.1, 1.0, 10.0, 100.0)
"""Inverse regularization C to choose from, of TF-IDF."""
OF_VECTORS = (0.001, 0.01, 0.1, 1.0)
"""The same of vectors, whose axes all have variance 1."""
FOLDS = 3
MOST = 10_000  # rows, drawn at random, that C is chosen on for vectors: dense ones take long
MANY_ROWS = 20_000  # from here on two epochs of larger batches do what three of smaller ones do
REAL = 4  # bytes of a weight


@dataclass(frozen=True)
class Answered:
    """Classes [N] for each set of rows, and what the weights of whoever answered take."""

    predicted: list[np.ndarray]
    size_bytes: int
    strength: float | None = None  # the C that was chosen


def majority(train: Rows, rows: Rows) -> np.ndarray:
    """The commonest class of the training rows for every row [N] int64."""
    return np.full(len(rows), np.bincount(train.labels).argmax())


def lexical(train: Rows, others: Sequence[Rows], metric: str, report: Report) -> Answered:
    """TF-IDF + logistic regression, with the C that has the best cross-validated metric on the training rows. Its size
    is the words, and their weights in float32."""
    words = Words(train)
    fitted, best = _fitted(words(train), train.labels, STRENGTHS, metric, report)
    vocabulary = words.inner.vocabulary_
    text = sum(len(word.encode()) + 1 for word in vocabulary)
    size = text + REAL * (len(vocabulary) + fitted.coef_.size + fitted.intercept_.size)
    return Answered([fitted.predict(words(rows)) for rows in others], size, best)


def on_vectors(
    vectors: MiniLM | Model2Vec, train: Rows, others: Sequence[Rows], metric: str, report: Report
) -> Answered:
    """Logistic regression on vectors that the task hasn't touched, chosen like that of `lexical`."""
    seen, *asked = features(vectors, [train, *others], report)
    drawn = np.sort(np.random.default_rng(0).permutation(len(train))[:MOST])
    fitted, best = _fitted(seen, train.labels, OF_VECTORS, metric, report, drawn)
    weights = fitted[-1]
    size = vectors.size_bytes + REAL * (weights.coef_.size + weights.intercept_.size)
    return Answered([fitted.predict(x) for x in asked], size, best)


def on_backbone(train: Rows, others: Sequence[Rows], classes: int, report: Report, name: str = "english") -> Answered:
    """What `beexformer train` makes of rows of one's own: heads on frozen states of the 1-bit backbone that ships, on
    those of pairs' both texts. The block whose cross-validated cross-entropy is least answers."""
    start = backbone.read(name, Path())
    tokenizer = Tokenizer(start.tokenizer, start.shape["max_tokens"])
    config = mean_states.config_of(start, classes, tokenizer.vocab_size, start.shape["max_tokens"])
    apart = bool(train.pairs)
    given = pooling.worth_trying(len(train), apart=apart)
    engine = mean_states.engine_of(mean_states.network_of(start, config), start.tokenizer, given)
    seen, *asked = (mean_states.features(engine, rows.inputs(), apart, 1, report) for rows in (train, *others))
    targets = np.eye(classes)[train.labels]
    chosen = pooling.fit(seen, targets, given, report=report)
    result, config = chosen.heads, replace(config, pooling=chosen.pooling)
    nats = [heads.cross_entropy(result.cross_validated[:, c], targets) for c in range(seen.shape[1])]
    best = int(np.argmin(nats))
    k = result.heads[best].weight.shape[1]
    return Answered([result.heads[best](x[:, best, :k]).argmax(1) for x in asked], packed_bytes(config))


def _fitted(
    inputs: np.ndarray | sparse.csr_matrix,
    labels: np.ndarray,
    strengths: Sequence[float],
    metric: str,
    report: Report,
    drawn: np.ndarray | slice = slice(None),
) -> tuple[BaseEstimator, float]:
    """A regression on all rows, with the C whose cross-validated metric is best on those `drawn`, and that."""
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    steps, result = len(strengths) + 1, []
    for i, strength in enumerate(strengths):
        report(i, steps, f"C {strength:g}")
        regression = _regression(strength, sparse.issparse(inputs))
        scoring = make_scorer(METRICS[metric])
        result.append(cross_val_score(regression, inputs[drawn], labels[drawn], cv=folds, scoring=scoring).mean())
    best = strongest(result, strengths)
    report(steps - 1, steps, f"C {best:g}")
    fitted = _regression(best, sparse.issparse(inputs)).fit(inputs, labels)
    report(steps, steps, f"C {best:g}")
    return fitted, best


def strongest(scores: Sequence[float], strengths: Sequence[float] = STRENGTHS) -> float:
    """Of `strengths` the one with the best score, the smallest of those that a tenth of a point doesn't tell apart.

    SST-2's 10 and 100 differ by 0.00001 there, which rounding decides, and by two points on its test rows.
    """
    return strengths[int(np.argmax(np.array(scores) >= max(scores) - 0.001))]


def _regression(strength: float, as_they_are: bool) -> BaseEstimator:
    regression = LogisticRegression(C=strength, max_iter=5000)
    return regression if as_they_are else make_pipeline(StandardScaler(), regression)


def encoder(
    train: Rows, others: Sequence[Rows], n_class: int, work: Path, report: Report, name: str = "minilm"
) -> Answered:
    """An encoder fine-tuned on `train`; `work` keeps weights and answers, and a second call goes on where the first one
    ended. Raises TrainingError where its package is not installed."""
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
    logits = [
        teacher.answer(tuned, rows.texts, rows.pairs, folder / digest(rows)[:12], dtype=dtype, report=report)
        for rows in others
    ]
    return Answered([each.argmax(1) for each in logits], (place / "model.safetensors").stat().st_size)


def digest(*parts: Rows) -> str:
    """SHA-256 of rows, to tell what was kept for them from what was kept for others."""
    return hashlib.sha256("".join(rows.sha256() for rows in parts).encode()).hexdigest()
