"""
The recipe for Spark in docs/scaling.md, run as it stands there by a local Spark, beside the command line.

Skips without Spark and Java: pip install pyspark pandas, apt-get install openjdk-17-jre-headless.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("pyspark", reason="Spark is not installed; pip install pyspark pandas")
pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not shutil.which("java"), reason="Spark needs Java; apt-get install default-jre-headless"),
]

ROOT = Path(__file__).parent.parent.parent
CLASSIFY = [sys.executable, "-c", "from beexformer.cli import main; main()", "classify"]


def test_the_recipe_gives_what_the_command_line_gives(tmp_path: Path) -> None:
    [recipe] = re.findall(r"```python\n(.*?mapInPandas.*?)```", (ROOT / "docs/scaling.md").read_text(), re.DOTALL)
    texts = [f"{text} {i}" for i in range(1000) for text in ("a warm , funny film", "dull and lifeless")]
    rows = tmp_path / "rows.parquet"
    pq.write_table(pa.table({"id": [f"{i:05}" for i in range(len(texts))], "review": texts}), rows)
    (tmp_path / "recipe.py").write_text(recipe)
    environment = {
        **os.environ,
        "ROWS": str(rows),
        "SCORED": str(tmp_path / "scored"),
        "PYSPARK_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYTHONPATH": str(ROOT),
    }
    ran = subprocess.run(
        [sys.executable, "recipe.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=600
    )
    assert ran.returncode == 0, ran.stderr[-3000:]
    command = [*CLASSIFY, rows, "--text", "review", "-o", tmp_path / "whole.parquet", "--threads", "1"]
    subprocess.run(command, check=True, capture_output=True)
    result = pq.read_table(tmp_path / "scored").sort_by("id")
    whole = pq.read_table(tmp_path / "whole.parquet").select(result.column_names)
    assert result.cast(whole.schema).equals(whole)
