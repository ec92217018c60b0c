"""
Vectors of texts that no task has touched, for baselines that put a logistic regression on them: MiniLM's sentence
vectors, and static ones that are distilled from it (Model2Vec).

Each is a function from texts to [N, D] float32. A text that comes several times is read once.
"""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from tokenizers import Tokenizer
from transformers import AutoModel, AutoTokenizer

from beexformer.model.errors import TrainingError
from beexformer.training import precision
from beexformer.training.batches import pad, sorted_batches
from beexformer.training.data import Rows, sides
from beexformer.training.encoders import locate
from beexformer.training.network import mean_state
from beexformer.training.progress import Report

if TYPE_CHECKING:
    from model2vec.model import StaticModel

Vectors = Callable[[list[str], Report], np.ndarray]
"""Texts -> [N, D] float32."""
LONGEST = 256  # tokens, where MiniLM's own package cuts
BATCH = 32
AXES = 256  # of Model2Vec, as its authors recommend


class MiniLM:
    """Its sentence vectors, of length 1. Raises TrainingError where its package is not installed."""

    def __init__(self, cache: Path) -> None:
        folder = locate("minilm", cache)
        self.size_bytes = (folder / "model.safetensors").stat().st_size
        self._model = AutoModel.from_pretrained(folder, local_files_only=True).eval()
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(min(LONGEST, self._model.config.max_position_embeddings))

    @torch.inference_mode()
    def __call__(self, texts: list[str], report: Report = lambda *_: None) -> np.ndarray:
        ids = [np.array(encoding.ids) for encoding in self._tokenizer.encode_batch(texts)]
        result = np.empty((len(ids), self._model.config.hidden_size), np.float32)
        done = 0
        for batch in sorted_batches(np.array([len(row) for row in ids]), BATCH):
            padded, mask = pad([ids[i] for i in batch])
            with torch.autocast("cpu", torch.bfloat16, enabled=precision.faster() == torch.bfloat16):
                states = self._model(input_ids=padded, attention_mask=mask.long()).last_hidden_state
            result[batch] = torch.nn.functional.normalize(mean_state(states.float(), mask)).numpy()
            done += len(batch)
            report(done, len(ids), "")
        return result


def static_model(folder: Path) -> "StaticModel":
    """Model2Vec of MiniLM in 256 dimensions; distilled once in `folder`. Raises TrainingError where a package is not
    installed."""
    place = folder / "model2vec"
    source = None if place.exists() else locate("minilm", folder)
    if not importlib.util.find_spec("model2vec"):
        raise TrainingError("model2vec is not installed; run: pip install 'beexformer[bench]'")
    from model2vec.model import StaticModel

    if source:
        from model2vec.distill import distill_from_model

        model = AutoModel.from_pretrained(source, local_files_only=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(source, local_files_only=True)
        distill_from_model(model, tokenizer, pca_dims=AXES, device="cpu").save_pretrained(str(place))
    return StaticModel.from_pretrained(str(place))


class Model2Vec:
    """Means of static vectors of tokens, of length 1."""

    def __init__(self, cache: Path) -> None:
        self._model = static_model(cache)
        self.size_bytes = sum(path.stat().st_size for path in (cache / "model2vec").iterdir())

    def __call__(self, texts: list[str], report: Report = lambda *_: None) -> np.ndarray:
        result: np.ndarray = self._model.encode(texts, use_multiprocessing=False).astype(np.float32)
        report(len(texts), len(texts), "")
        return result / np.linalg.norm(result, axis=1, keepdims=True).clip(1e-9)


def features(vectors: Vectors, parts: Sequence[Rows], report: Report) -> list[np.ndarray]:
    """Of each of `parts` what a linear model reads: the vector of a text; of pairs a, b, |a - b| and a * b."""
    texts = [text for rows in parts for row in rows.inputs() for text in sides(row)]
    distinct = sorted(set(texts))
    at = {text: i for i, text in enumerate(distinct)}
    result = vectors(distinct, report)
    read = []
    for rows in parts:
        x = result[[at[text] for row in rows.inputs() for text in sides(row)]]
        if rows.pairs:
            a, b = x[::2], x[1::2]
            x = np.concatenate([a, b, np.abs(a - b), a * b], 1)
        read.append(x)
    return read
