"""Fixtures of the tests of `model`."""

from pathlib import Path

import hypothesis
import pytest
from tiny import random_checkpoint

from model.checkpoint import Checkpoint, save
from model.engine import Engine

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
