"""
TF-IDF with logistic regression: what a network has to beat on the same rows, and what serves well where it doesn't.
"""

import warnings

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold

from beexformer.training import decisions, label_sets
from beexformer.training.data import Rows
from beexformer.training.evaluate import METRICS

FOLDS = 5
STRENGTH = 10.0  # inverse regularization C, where none is chosen
MOST = 20_000  # rows from which on it would take longer than the network


class Words:
    """TF-IDF of words and pairs of neighbouring words, fitted on training rows.

    A pair of texts a, b has four blocks over one vocabulary: a, b, |a - b| and a * b, so that a linear model can see
    what both have and what only one has.
    """

    def __init__(self, train: Rows) -> None:
        self.inner = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
        self.inner.fit([*train.texts, *(train.pairs or [])])

    def __call__(self, rows: Rows) -> sparse.csr_matrix:
        a = self.inner.transform(rows.texts)
        if not rows.pairs:
            return a
        b = self.inner.transform(rows.pairs)
        return sparse.hstack([a, b, abs(a - b), a.multiply(b)], format="csr")


def answers(train: Rows, rows: Rows) -> np.ndarray:
    """Classes for `rows` [N] by what was learned from `train`; of a single class, that one."""
    if len(set(train.labels.tolist())) < 2:
        return np.full(len(rows), train.labels[0])
    words = Words(train)
    fitted: np.ndarray = (
        LogisticRegression(C=STRENGTH, max_iter=500).fit(words(train), train.labels).predict(words(rows))
    )
    return fitted


def answered(train: Rows, dev: Rows) -> np.ndarray | None:
    """Classes or labels of the development rows; where these are the training rows themselves, by cross-validation, as
    such a network is scored. None where there are too many rows, or texts without a word."""
    if len(train) > MOST:
        return None
    try:
        if train.multi_label:
            return _label_sets(train, dev)
        if dev is not train:
            return answers(train, dev)
        small = np.bincount(train.labels).max() < FOLDS
        folds = (KFold if small else StratifiedKFold)(min(FOLDS, len(train)), shuffle=True, random_state=0)
        said = np.empty_like(train.labels)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that a class has fewer rows than there are folds
            parts = [*folds.split(train.labels, train.labels)]
        for rest, held_out in parts:
            said[held_out] = answers(train.take(rest), train.take(held_out))
    except ValueError:  # an empty vocabulary
        return None
    return said


def score(train: Rows, dev: Rows, metric: str) -> float | None:
    """What `answered` is worth on the development rows."""
    said = answered(train, dev)
    return None if said is None else float(METRICS[metric](dev.labels, said))


def _label_sets(train: Rows, dev: Rows) -> np.ndarray:
    """A regression for each label; thresholds are chosen on rows that it hasn't seen, as a network's are."""
    folds = label_sets.folds(train.labels, min(FOLDS, len(train)))
    seen = np.empty(train.labels.shape)
    for fold in np.unique(folds):
        seen[folds == fold] = _scores(
            train.take(np.flatnonzero(folds != fold)), train.take(np.flatnonzero(folds == fold))
        )
    if dev is train:
        return seen >= decisions.cross_fitted(seen, train.labels, folds)
    return _scores(train, dev) >= decisions.thresholds(seen, train.labels)


def _scores(train: Rows, rows: Rows) -> np.ndarray:
    """How probably each label applies to `rows` [N, m]; of one that no training row has, or every one, its share."""
    words = Words(train)
    seen, asked = words(train), words(rows)
    result = np.tile(train.labels.mean(0), (len(rows), 1))
    for j, applies in enumerate(train.labels.T):
        if 0 < applies.sum() < len(train):
            fitted = LogisticRegression(C=STRENGTH, max_iter=500).fit(seen, applies)
            result[:, j] = fitted.predict_proba(asked)[:, 1]
    return result
