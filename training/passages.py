"""
Running text with soft labels: passages of documents, each labelled by what another model says of its sentences.

A model that has read sentences alone is asked about whole reviews too. Where the training rows are sentences of
documents that are at hand, a passage of them has the mean of the log-probabilities of those of its sentences that have
soft labels.
"""

from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from beexformer.model.errors import TrainingError
from beexformer.model.exits import softmax
from beexformer.model.tokenizer import Tokenizer
from beexformer.training import corpus
from beexformer.training.data import Input, Rows, cut, key
from beexformer.training.recipe import Data, Passages

ROOMS = (126, 254, 510)  # tokens that a passage may have beside [CLS] and [SEP]
SHORTEST = 96  # tokens of a passage
KNOWN = 0.6  # share of its words in sentences that have soft labels
SENTENCES = 60  # that are looked at from where a passage begins


def add(plan: Data, root: Path, rows: Rows, tokenizer: Tokenizer) -> Rows:
    """Training rows with a recipe's passages after them, and without sentences of the paragraphs that it holds out.
    Raises TrainingError for pairs, for rows without soft labels, and where the text has too few passages."""
    passages = plan.passages
    if passages is None:
        return rows
    if rows.pairs or rows.soft is None:
        raise TrainingError("[data.passages] needs single texts with soft labels; leave it out")
    lines_out: list[int] = []
    if passages.held_out:
        lines_out, sentences = corpus.hold_out(root / passages.file, passages.held_out, passages.held_out_seed)
        stated = (np.ones(len(rows), bool) if rows.stated is None else rows.stated).tolist()
        kept = [i for i, text in enumerate(rows.texts) if stated[i] or key(text) not in sentences]
        rows = rows.take(np.array(kept))
    assert rows.soft is not None
    known = {key(text): np.log(np.maximum(soft, 1e-6)) for text, soft in zip(rows.texts, rows.soft, strict=True)}
    return rows.joined(_drawn(passages, root / passages.file, known, set(lines_out), tokenizer))


def _drawn(
    plan: Passages, file: Path, known: Mapping[Input, np.ndarray], lines_out: Collection[int], tokenizer: Tokenizer
) -> Rows:
    """As many passages as the recipe asks for, at most one of a document, in random order: rows without a label of
    their own. `known` has log-probabilities [m] by the key of a sentence. Raises TrainingError where there
    are fewer."""
    documents = [text for text, _ in corpus.documents(file)]
    rng = np.random.default_rng(plan.seed)
    texts: list[str] = []
    logits: list[np.ndarray] = []
    for number in rng.permutation(len(documents)).tolist():
        if len(texts) == plan.rows:
            break
        result = None if number in lines_out else _passage(documents[number], known, tokenizer, rng)
        if result:
            texts.append(result[0])
            logits.append(result[1])
    if len(texts) < plan.rows:
        raise TrainingError(f"{file} has {len(texts)} passages of labelled sentences; set data.passages.rows to that")
    soft = softmax(np.array(logits)).astype(np.float32)
    return Rows(texts, None, soft.argmax(1), soft, np.zeros(len(texts), bool))


def _passage(
    document: str, known: Mapping[Input, np.ndarray], tokenizer: Tokenizer, rng: np.random.Generator
) -> tuple[str, np.ndarray] | None:
    """Sentences of a document in their order, from its beginning or from anywhere, and their mean logits [m]; None
    where they are too few, or too few of them are known."""
    sentences = [sentence for sentence in cut(document) if sentence]
    begin = int(rng.integers(0, len(sentences))) if sentences and rng.random() < 0.5 else 0
    room = full = int(rng.choice(ROOMS))
    taken, said, words, heard = [], [], 0, 0
    window = sentences[begin : begin + SENTENCES]
    for sentence, ids in zip(window, tokenizer.encode_rows(window), strict=True):
        room -= len(ids) - 2
        if room < 0:
            room += len(ids) - 2
            break
        taken.append(sentence)
        words += len(sentence.split())
        if (logits := known.get(key(sentence))) is not None:
            said.append(logits)
            heard += len(sentence.split())
    if full - room + 2 < SHORTEST or len(taken) < 2 or heard < KNOWN * words:
        return None
    return " ".join(taken), np.mean(said, 0)
