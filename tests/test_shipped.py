"""The checkpoints in the package: what they claim is what they do.

With BEE_DATA (a data folder as README describes it) the claims are measured anew; they are left out without it.
"""

import os
from pathlib import Path

import pytest

from model.checkpoint import Checkpoint, read
from model.engine import Engine

SST2 = Path(__file__).parent.parent / "model" / "checkpoints" / "sst2"
DEV = Path(os.environ.get("BEE_DATA", "")) / "glue" / "sst2" / "dev.tsv.gz"
measured = pytest.mark.skipif(not DEV.is_file(), reason="BEE_DATA names no folder with glue/sst2/dev.tsv.gz")


@pytest.fixture(scope="module")
def shipped() -> Checkpoint:
    return read(SST2)


def test_it_fits_and_says_where_it_comes_from(shipped: Checkpoint) -> None:
    assert shipped.size_bytes <= 14.26e6
    made = shipped.evaluation["provenance"]
    assert {"commit", "data", "data_sha256", "seed", "recipe", "teacher", "parity", "tokens"} <= made.keys()
    assert f"{shipped.evaluation['dev']['score']:.4f}" in shipped.card


def test_it_knows_praise_from_blame(shipped: Checkpoint) -> None:
    engine = Engine(shipped)
    for text, label in (
        ("a warm, funny film", "positive"),
        ("an absolute delight from start to finish", "positive"),
        ("the worst movie i have ever seen", "negative"),
        ("dull, lifeless and far too long", "negative"),
    ):
        assert engine.predict([engine.encode(text)])[0].label == label


@measured
def test_dev_numbers_are_what_the_engine_gives(shipped: Checkpoint) -> None:
    data, evaluate = pytest.importorskip("model.data"), pytest.importorskip("model.evaluate")
    rows, _ = data.read_rows(DEV, data.Columns("sentence"), list(shipped.labels))
    found, claimed = evaluate.evaluate(Engine(shipped), rows), shipped.evaluation["dev"]
    assert {name: found[name] for name in ("score", "full_depth_score", "exits")} == {
        name: claimed[name] for name in ("score", "full_depth_score", "exits")
    }, "the engine's answers don't depend on the machine"


@measured
def test_torch_and_engine_agree_on_all_of_dev(shipped: Checkpoint) -> None:
    data, export = pytest.importorskip("model.data"), pytest.importorskip("model.export")
    rows, _ = data.read_rows(DEV, data.Columns("sentence"), list(shipped.labels))
    engine = Engine(shipped)
    parity = export.verify(shipped, engine, [engine.encode(text) for text in rows.texts])
    assert parity.rows == 872
    assert parity.holds, parity
