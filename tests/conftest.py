"""Fixtures of the tests of `model`; and what is left out where the extra [train] is not installed."""

import importlib.util
import os
import re
from pathlib import Path

import hypothesis
import pytest
from tiny import random_checkpoint

from beexformer.model.checkpoint import Checkpoint, save
from beexformer.model.engine import Engine

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the networks here are tiny, and waiting threads cost more than they do

TRAINING = re.compile(
    r"^(from|import) (torch|transformers|sklearn|tiny_backbone|test_teacher|beexformer\.(training|report))", re.M
)
"""What a test of the training half has among its imports."""
WITHOUT_TRAINING = importlib.util.find_spec("torch") is None
TESTS = Path(__file__).parent
collect_ignore = (
    [str(path) for path in TESTS.rglob("test_*.py") if TRAINING.search(path.read_text())] if WITHOUT_TRAINING else []
)


def pytest_report_header() -> str | None:
    return "without the extra [train]: tests of the training half are left out" if WITHOUT_TRAINING else None


hypothesis.settings.register_profile("untimed", deadline=None)  # no test here asserts a time
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def checkpoint() -> Checkpoint:
    return random_checkpoint()


@pytest.fixture(scope="session")
def engine(checkpoint: Checkpoint) -> Engine:
    return Engine(checkpoint)


@pytest.fixture
def folder(checkpoint: Checkpoint, tmp_path: Path) -> Path:
    """A checkpoint folder that a test may spoil."""
    save(checkpoint, tmp_path / "tiny")
    return tmp_path / "tiny"


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The data folder that the README describes, where BEE_DATA names one."""
    root = Path(os.environ.get("BEE_DATA", ""))
    if not (root / "glue").is_dir():
        pytest.skip("BEE_DATA names no folder with glue in it")
    return root
