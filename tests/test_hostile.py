"""
Whatever is edited in a checkpoint, with all digests set right again: it is refused with one sentence, or answers as
before. No crash, no hang, no wrong answer. Edits are made and loaded in a process of their own (tests/hostile.py).
"""

import json
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tiny import random_checkpoint

from beexformer.model import probes
from beexformer.model.checkpoint import save
from beexformer.model.engine import Engine

SHAPES: dict[str, dict[str, Any]] = {
    "binary": {"embedding": "int4+2", "head_thresholds": 2, "exact_match": True, "input": "pair"},
    "linear": {"head": "linear", "input": "text"},
}
WORKER = Path(__file__).with_name("hostile.py")


def survive(tmp_path: Path, shape: str, edits: range) -> None:
    checkpoint = random_checkpoint(d_model=64, n_head=2, n_block=2, max_tokens=32, **SHAPES[shape])
    save(replace(checkpoint, probes=probes.make(Engine(checkpoint))), tmp_path / "tiny")
    command = [sys.executable, str(WORKER), str(tmp_path / "tiny"), str(edits.start), str(edits.stop)]
    ran = subprocess.run(command, capture_output=True, text=True)
    lines = [json.loads(line) for line in ran.stdout.splitlines()]
    assert ran.returncode == 0, f"edit {lines[-1] if lines else None} ended the process: {ran.stderr[-2000:]}"
    outcomes = {number: (how, outcome) for number, how, outcome in (line for line in lines if len(line) == 3)}
    assert set(outcomes) == set(edits)
    bad = {number: result for number, result in outcomes.items() if result[1] not in ("refused", "as before")}
    assert not bad, f"{len(bad)}: {dict(list(bad.items())[:8])}"
    assert min(Counter(outcome for _, outcome in outcomes.values()).values()) > len(edits) / 20, "both must happen"


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_150_edits(tmp_path: Path, shape: str) -> None:
    survive(tmp_path, shape, range(150))


@pytest.mark.soak
@pytest.mark.parametrize("shape", SHAPES)
def test_2000_edits(tmp_path: Path, shape: str) -> None:
    survive(tmp_path, shape, range(150, 2150))
