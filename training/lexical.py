"""
TF-IDF with logistic regression: what a network has to beat on the same rows, and what serves well where it doesn't.
"""

import warnings

import numpy as np
from scipy import sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import KFold, StratifiedKFold

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


def score(train: Rows, dev: Rows, metric: str) -> float | None:
    """On the development rows; where these are the training rows themselves, by cross-validation, as such a network
    is scored. None where there are too many rows, or texts without a word."""
    if len(train) > MOST:
        return None
    try:
        if dev is not train:
            return float(METRICS[metric](dev.labels, answers(train, dev)))
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
    return float(METRICS[metric](train.labels, said))
