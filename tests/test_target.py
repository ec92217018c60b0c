"""Instruction sets: which one is chosen, and that all give the same answers."""

import hashlib
import os
import subprocess
import sys
from typing import get_args

import llvmlite.binding as llvm
import pytest

from beexformer.app.settings import Settings
from beexformer.model import target

pytestmark = pytest.mark.slow

EVERYTHING = dict.fromkeys(set().union(*(needs for _, _, needs in target.LEVELS.values())), True)
NO_AVX512 = {name: not name.startswith("avx512") for name in EVERYTHING}
HERE = dict(llvm.get_host_cpu_features())
AVAILABLE = ["native", *(level for level, (_, _, needs) in target.LEVELS.items() if all(HERE.get(n) for n in needs))]

ANSWERS = """
import sys
sys.path.insert(0, "tests")
import numpy as np
from tiny import random_checkpoint
from beexformer.model import target
from beexformer.model.engine import Engine, Row
from beexformer.model.options import ExitSettings
assert target.level == sys.argv[1], target.level
shapes = [
    {"d_model": 64, "n_head": 1}, {"d_model": 64, "n_head": 64, "n_block": 2}, {"d_model": 192, "n_head": 8},
    {"d_model": 320, "n_head": 4, "d_head": 128, "carry": "h", "labels": tuple("abcdefghijklmnopqrs")},
    {"d_model": 64, "n_head": 2, "n_block": 1, "head": "linear", "labels": tuple("abcdefghijklmnopqrs"),
     "max_tokens": 512},
    {"d_model": 192, "n_head": 2, "n_block": 2, "head": "linear", "pooling": "mean_and_start"},
]
for shape in shapes:
    engine = Engine(random_checkpoint(vocabulary=120, **shape))
    rng = np.random.default_rng(0)
    C = engine.config.n_block
    ids = [rng.integers(0, 120, L).astype(np.int32) for L in (1, 2, 3, 7, 16, 17, 31, 48, engine.config.max_tokens)]
    rows = [Row(one, False, ExitSettings(1e-4, 0.0, 1, C)) for one in ids]
    print(engine.logits(rows).tobytes().hex(), engine.predict(rows))
"""


def test_the_highest_level_is_chosen() -> None:
    assert target.choose("auto", EVERYTHING) == "x86-64-v4-vpopcntdq"
    assert target.choose("auto", NO_AVX512) == "x86-64-v3"
    assert target.choose("auto", {}) == "native"
    assert target.choose("native", EVERYTHING) == "native"
    assert target.choose("x86-64-v2", EVERYTHING) == "x86-64-v2"


@pytest.mark.parametrize(
    ("wanted", "words"), [("x86-64-v5", "must be one of auto"), ("x86-64-v4-vpopcntdq", "lacks; it has x86-64-v3, ")]
)
def test_a_level_that_cannot_be_is_refused(wanted: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        target.choose(wanted, NO_AVX512)


def test_signs_are_looked_up_where_bits_are_slow_to_count() -> None:
    has = {level: target.looks_up(needs) for level, (_, _, needs) in target.LEVELS.items()}
    assert has == {"x86-64-v4-vpopcntdq": False, "x86-64-v3": True, "x86-64-v2": False}
    assert target.looks_up([name for name, there in HERE.items() if there]) is target.LOOK_UP


def test_the_setting_offers_what_there_is() -> None:
    """Written out there: importing them would fix numba's target before the setting has been read."""
    assert get_args(Settings.model_fields["cpu"].annotation) == target.CHOICES


def answers(level: str) -> str:
    environment = {**os.environ, "BEE_CPU": level}
    done = subprocess.run([sys.executable, "-c", ANSWERS, level], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return hashlib.sha256(done.stdout.encode()).hexdigest()


@pytest.fixture(scope="module")
def native() -> str:
    return answers("native")


@pytest.mark.parametrize("level", target.LEVELS)
def test_answers_are_the_same_to_the_bit_on_every_instruction_set(level: str, native: str) -> None:
    if level not in AVAILABLE:
        pytest.skip(f"this CPU lacks {level}")
    assert answers(level) == native


def test_an_engine_refuses_a_level_that_the_cpu_lacks_in_one_sentence() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "from beexformer.cli import main; main()", "classify", "fine"],
        env={**os.environ, "BEE_CPU": "x86-64-v9"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("beexformer: BEE_CPU is 'x86-64-v9' and must be one of auto, native")
    assert done.stderr.count("\n") == 1
