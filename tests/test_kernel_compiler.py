"""How kernels are compiled: parts once for each combination of types, and machine code of wholes only."""

import gc
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from beexformer.model.kernel_cache import cached
from beexformer.model.kernel_compiler import compiled


@compiled
def part(x: int, y: int) -> int:
    return 10 * x + y


def whole(x: int) -> int:
    return part(x, 2) + part(3, x) + part(x, x)


def test_a_part_is_compiled_once_whatever_numbers_callers_state(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path_factory.mktemp("kernels")))
    kernel = cached(whole)
    assert kernel(1) == 12 + 31 + 11
    assert len(part.signatures) == 1

    (of_part,), (of_whole,) = part.overloads.values(), kernel.overloads.values()
    assert of_part.library.get_pointer_to_function(of_part.fndesc.llvm_func_name) == 0  # no machine code
    assert of_whole.library.get_pointer_to_function(of_whole.fndesc.llvm_func_name)


@pytest.mark.parametrize("collecting", [True, False])
def test_garbage_is_collected_after_compiling_as_before(
    collecting: bool, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path_factory.mktemp("kernels")))
    before = gc.isenabled()
    (gc.enable if collecting else gc.disable)()
    try:
        cached(lambda x: x + 1)(1)
        assert gc.isenabled() == collecting
    finally:
        (gc.enable if before else gc.disable)()


def test_what_kernels_do_without_is_loaded_for_others_alone(tmp_path: Path) -> None:
    """scipy's linear algebra takes longer to import than a kernel's part to compile; whoever uses numba in the same
    process has all of it all the same."""
    program = """
        import sys
        import numpy as np
        from numba import njit
        from beexformer.model.kernel_cache import cached

        def halves(x, out):
            for i in range(x.size):
                out[i] = x[i] / 2

        halved = np.zeros(3)
        cached(halves)(np.arange(3.0), halved)
        assert halved.tolist() == [0.0, 0.5, 1.0]
        assert "numba.np.linalg" not in sys.modules, "loaded for nothing"

        @njit
        def others(x):
            counts = {}
            for each in x:
                counts[each] = 1
            return len(counts), np.sqrt(x).sum(), np.sort(x)[0], (x * 2 + 1.0)[1]

        assert others(np.array([4.0, 1.0, 4.0])) == (2, 5.0, 1.0, 3.0)
        assert "numba.np.linalg" in sys.modules
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    subprocess.run(command, check=True, env={"NUMBA_CACHE_DIR": str(tmp_path), "PYTHONPATH": ":".join(sys.path)})
