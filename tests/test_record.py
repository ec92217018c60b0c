import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from beexformer.model.errors import TrainingError
from beexformer.training import record
from beexformer.training.record import Record


def made(task: str = "a", variant: str = "proposed", seed: int = 1) -> Record:
    rng = np.random.default_rng(seed)
    meta: dict[str, Any] = {"task": task, "variant": variant, "seed": seed, "class_names": ["schlecht", "gut – ja"]}
    return Record(meta, rng.normal(size=(5, 3, 2)).astype(np.float32), np.arange(5), np.array([0, 1, 1, 0, 1]))


def test_what_is_written_is_read(tmp_path: Path) -> None:
    one = made()
    record.write(one, tmp_path / record.FILE)
    result = record.read(tmp_path / record.FILE)
    assert result.meta == one.meta
    for ours, theirs in ((result.logits, one.logits), (result.tokens, one.tokens), (result.labels, one.labels)):
        assert ours.dtype == theirs.dtype
        assert (ours == theirs).all()
    assert [path.name for path in tmp_path.iterdir()] == [record.FILE]


def test_all_records_of_a_folder_are_found_in_order_and_nothing_else(tmp_path: Path) -> None:
    order = [("a", "fp", 1), ("a", "proposed", 2), ("a", "proposed", 10), ("b", "proposed", 1)]
    for i, (task, variant, seed) in enumerate(reversed(order)):
        (tmp_path / str(i)).mkdir()
        record.write(made(task, variant, seed), tmp_path / str(i) / (record.FILE if i else "shipped.npz"))
    np.savez(tmp_path / "corpus.npz", ids=np.arange(3))
    result = record.find(tmp_path)
    assert [(one.meta["task"], one.meta["variant"], one.meta["seed"]) for one in result] == order


def test_what_is_no_record_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="no such file"):
        record.read(tmp_path / "none.npz")
    (tmp_path / "a.npz").write_text("not a zip file")
    np.savez(tmp_path / "b.npz", ids=np.arange(3))
    np.savez(tmp_path / "c.npz", meta=np.array("no JSON"))
    np.savez(tmp_path / "d.npz", meta=np.array([{"task": "a"}], dtype=object))  # would have to be unpickled
    np.savez(tmp_path / "e.npz", meta=np.array(json.dumps({})))
    for name in "abcde":
        with pytest.raises(TrainingError, match=f"{name}.npz is no record of a run"):
            record.read(tmp_path / f"{name}.npz")
