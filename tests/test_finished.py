import json
import os
from pathlib import Path

from beexformer.training.finished import finished
from beexformer.training.own_rows import own_rows


def test_a_run_is_finished_until_its_rows_or_options_change(tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("text,label\n")
    out, recipe = tmp_path / "model", own_rows("model", {"train": "rows.csv"})
    assert finished(out, recipe, tmp_path) is None
    out.mkdir()
    described = {"provenance": {"recipe": recipe.model_dump()}, "dev": {"metric": "accuracy", "score": 0.9, "rows": 7}}
    (out / "evaluation.json").write_text(json.dumps(described))
    (out / "config.json").write_text("{}")
    said = finished(out, recipe, tmp_path)
    assert said is not None
    assert "is finished: accuracy 0.9000 of 7 rows" in said
    assert finished(out, recipe.seeded(2), tmp_path) is None
    os.utime(tmp_path / "rows.csv", (2e9, 2e9))
    assert finished(out, recipe, tmp_path) is None, "the rows are newer"
