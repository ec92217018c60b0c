"""Small networks and texts made from a seed, for the tests of `model`. Nothing comes from elsewhere."""

from dataclasses import replace

import numpy as np

from beexformer.model import bits
from beexformer.model.checkpoint import Checkpoint
from beexformer.model.config import BEEConfig
from beexformer.model.embedding import pack, quantize, steps
from beexformer.model.manifest import Input
from beexformer.model.tensors import READERS, named_spec, stack
from beexformer.model.tokenizer import Tokenizer, train_wordpiece

WORDS = [
    "a",
    "warm",
    "funny",
    "film",
    "the",
    "worst",
    "movie",
    "ever",
    "made",
    "it",
    "is",
    "charming",
    "and",
    "often",
    "affecting",
    "journey",
    "dull",
    "lifeless",
]


def random_checkpoint(
    seed: int = 0,
    labels: tuple[str, ...] = ("negative", "positive"),
    vocabulary: int = 0,
    input: Input | None = None,
    **fields: object,
) -> Checkpoint:
    """An untrained binary network as a checkpoint, without torch: signs, scales and thresholds from a seed. The
    tokenizer is learned, and not reproducible; `vocabulary` states the embedding's rows, so that all else is."""
    tokenizer = train_wordpiece([" ".join(WORDS)] * 5, 120)
    shape = {"d_model": 128, "n_block": 6, "n_head": 4, "d_head": 64, "max_tokens": 48, **fields}
    vocab_size = vocabulary or Tokenizer(tokenizer, 48).vocab_size
    config = BEEConfig(vocab_size=vocab_size, n_class=len(labels), **shape)  # type: ignore[arg-type]
    rng = np.random.default_rng(seed)
    spec, tensors = named_spec(config), {}
    for name, (dtype, shape_) in spec.items():
        if dtype == "uint64":
            tensors[name] = bits.pack_weights(rng.normal(size=(shape_[1], shape_[0] * 64)))
        elif name.endswith("alpha"):
            width = np.prod(spec[name.replace("alpha", "beta")][1])
            tensors[name] = (rng.uniform(0.5, 1.5, shape_) * width**-0.5).astype(np.float32)
        elif "norm" in name and name.endswith("weight"):
            tensors[name] = rng.uniform(0.5, 1.5, shape_).astype(np.float32)
        elif name.endswith(".weight"):
            tensors[name] = quantize(rng.normal(size=shape_))[0]
        elif name.startswith("heads") and name.endswith("scale"):
            tensors[name] = np.full(shape_, 0.01, np.float32)
        elif dtype == "float32":
            tensors[name] = rng.normal(0, 0.3, shape_).astype(np.float32)
    rows = rng.normal(0, 0.5, (config.vocab_size, config.d_model // 2)).astype(np.float32)
    if config.embedding == "int8":
        tensors["embedding.rows"], tensors["embedding.scale"] = quantize(rows)
    else:
        tensors["embedding.step"] = steps(rows)
        tensors["embedding.rows"] = pack(rows, tensors["embedding.step"])
    return Checkpoint(
        name="tiny",
        config=config,
        labels=labels,
        input=input,
        tensors=stack(tensors, config),
        thresholds=tuple(0.4 + 0.1 * (i % 3) for i in range(len(labels))) if config.multi_label else None,
        tokenizer=tokenizer,
        card="# tiny\n",
    )


def with_readers(seed: int = 0) -> Checkpoint:
    """One of which requests may name classes of their own."""
    result = random_checkpoint(head="linear", input="text")
    rows = np.random.default_rng(seed).normal(size=(6, 128, 128)).astype(np.float32)
    weight, scale = zip(*map(quantize, rows), strict=True)
    tensors = {**result.tensors, READERS[0]: np.stack(weight), READERS[1]: np.stack(scale)}
    return replace(result, candidate_labels=True, learned_from="labels", tensors=tensors)


def with_median_thresholds(checkpoint: Checkpoint, texts: list[str]) -> Checkpoint:
    """One of several labels a text whose every label applies to about half of these texts, as they are answered: the
    tokenizer is another one in every process, and so are the scores."""
    from beexformer.model.engine import Engine

    engine = Engine(checkpoint)
    scores = [[*answer.scores.values()] for answer in engine.predict([engine.encode(text) for text in texts])]
    return replace(checkpoint, thresholds=tuple(np.median(scores, 0).tolist()))


def random_texts(count: int, seed: int = 0, longest: int = 30) -> list[str]:
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(1, longest))) for _ in range(count)]
