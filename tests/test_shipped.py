"""The checkpoints in the package: what they say is what they do.

With BEE_DATA (a data folder as README describes it) the claims are measured anew; they are left out without it.
"""

import json
from pathlib import Path

import pytest

from beexformer.model.checkpoint import Checkpoint, read
from beexformer.model.engine import Engine

FOLDERS = sorted((Path(__file__).parent.parent / "model" / "checkpoints").iterdir())


@pytest.fixture(scope="module", params=FOLDERS, ids=[folder.name for folder in FOLDERS])
def shipped(request: pytest.FixtureRequest) -> Checkpoint:
    return read(request.param)


def test_it_fits_and_says_where_it_comes_from(shipped: Checkpoint) -> None:
    assert shipped.size_bytes <= 14.26e6
    made = shipped.evaluation["provenance"]
    assert {"commit", "data", "data_sha256", "seed", "recipe", "parity", "tokens"} <= made.keys()
    assert "teacher" in made or made["recipe"]["data"]["also"], "whose answers it learned from"
    assert f"{shipped.evaluation['dev']['score']:.4f}" in shipped.card


def test_sst2_tells_positive_from_negative() -> None:
    engine = Engine.load(FOLDERS[0].parent / "sst2")
    for text, label in (
        ("a warm, funny film", "positive"),
        ("an absolute delight from start to finish", "positive"),
        ("the worst movie i have ever seen", "negative"),
        ("dull, lifeless and far too long", "negative"),
    ):
        assert engine.predict([engine.encode(text)])[0].label == label


def test_dev_numbers_are_what_the_engine_gives(shipped: Checkpoint, data_root: Path) -> None:
    evaluate = pytest.importorskip("beexformer.training.evaluate")
    splits = pytest.importorskip("beexformer.training.splits").splits
    engine = Engine(shipped)
    data = evaluate.recorded(engine)
    result = evaluate.evaluate(engine, splits(data, data_root, engine.labels).dev, data.metric)
    result, stored = json.loads(json.dumps(result)), shipped.evaluation["dev"]  # which has no texts and no advice
    same = {key: result[key] for key in stored}
    assert same == stored, "the engine's answers don't depend on the machine"


def test_torch_and_engine_agree_on_all_of_dev(shipped: Checkpoint, data_root: Path) -> None:
    evaluate, export = (
        pytest.importorskip("beexformer.training.evaluate"),
        pytest.importorskip("beexformer.training.export"),
    )
    splits = pytest.importorskip("beexformer.training.splits").splits
    engine = Engine(shipped)
    dev = splits(evaluate.recorded(engine), data_root, engine.labels).dev
    pairs = dev.pairs or [None] * len(dev)
    parity = export.verify(
        shipped, engine, [engine.encode(text, pair) for text, pair in zip(dev.texts, pairs, strict=True)]
    )
    assert parity.rows == len(dev)
    assert parity.holds, parity
