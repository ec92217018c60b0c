"""Memory goes back to the system, and what was given back works on."""

import subprocess
import sys
from pathlib import Path

import pytest

MAPS = Path("/proc/self/smaps")
CODE = """
from beexformer.app import memory
from beexformer.app.serve import COMPILER

def resident():
    kilobytes = 0
    for line in open("/proc/self/smaps"):
        if "-" in line.split()[0]:
            code = line.split()[1] == "r-xp" and line.rstrip().endswith(COMPILER)
        elif code and line.startswith("Rss:"):
            kilobytes += int(line.split()[1])
    return kilobytes

from numba import njit
assert njit(lambda x: x + 1)(1) == 2
before = resident()
memory.give_back_heap()
memory.give_back_code(COMPILER)
after = resident()
assert 10 * after < before, (before, after)
memory.give_back_code("no such library")
assert njit(lambda x: x + 2)(1) == 3, "it still compiles"
"""


@pytest.mark.skipif(not MAPS.exists(), reason="Linux alone says what is in memory")
def test_code_of_the_compiler_is_given_back_and_comes_again() -> None:
    subprocess.run([sys.executable, "-c", CODE], check=True)
