"""
Kernels compiled ahead of time, and used from a folder that may not be written to, as the image does.

Root may write anywhere, so it gives that up first, with setpriv.
"""

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from beexformer.model import kernel_cache, kernels

ROOT = Path(__file__).parent.parent
BEEXFORMER = Path(sys.executable).parent / "beexformer"
LEVEL = "x86-64-v2"
OBEDIENT = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []

pytestmark = [
    pytest.mark.slow,  # each compiles all kernels
    pytest.mark.skipif(platform.machine() != "x86_64", reason="levels are those of x86-64"),
    pytest.mark.skipif(bool(OBEDIENT) and not shutil.which("setpriv"), reason="root needs setpriv, of util-linux"),
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A read-only folder with the kernels of LEVEL."""
    folder = tmp_path_factory.mktemp("kernels")
    env = os.environ | {"NUMBA_CACHE_DIR": str(folder)}
    subprocess.run([sys.executable, "-m", "beexformer.model.kernel_cache", LEVEL], check=True, cwd=ROOT, env=env)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o555)
    return folder


def classify(folder: Path, temporary: Path, level: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*OBEDIENT, BEEXFORMER, "classify", "a warm, funny film"],
        env=os.environ
        | {"NUMBA_CACHE_DIR": str(folder), "NUMBA_DEBUG_CACHE": "1", "TMPDIR": str(temporary), "BEE_CPU": level},
        capture_output=True,
        text=True,
    )


def test_kernels_filled_ahead_are_loaded_and_nothing_is_compiled(filled: Path, tmp_path: Path) -> None:
    answered = classify(filled, tmp_path, LEVEL)
    assert answered.returncode == 0, answered.stderr
    assert '"label":"positive"' in answered.stdout
    assert f"data loaded from '{filled}" in answered.stdout
    assert answered.stderr == ""
    assert "saved to" not in answered.stdout


def test_loading_them_loads_nothing_of_what_compiles(filled: Path) -> None:
    code = (
        "import sys\nfrom beexformer.model.checkpoint import SHIPPED\nfrom beexformer.model.engine import Engine\n"
        "Engine.load(SHIPPED / 'sst2').warm()\nassert 'numba.np.arraymath' not in sys.modules"
    )
    env = os.environ | {"NUMBA_CACHE_DIR": str(filled), "BEE_CPU": LEVEL}
    subprocess.run([*OBEDIENT, sys.executable, "-c", code], check=True, cwd=ROOT, env=env)


def test_what_is_not_there_is_compiled_in_memory_and_said_once(filled: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in filled.rglob("*")}
    answered = classify(filled, tmp_path, "native")
    assert answered.returncode == 0, answered.stderr
    assert answered.stderr.count("\n") == 1, answered.stderr
    assert answered.stderr.startswith(f"compiled kernels can't be kept in {filled}")
    assert "they are compiled in memory" in answered.stderr
    assert {path: path.stat().st_mtime_ns for path in filled.rglob("*")} == before


def damage(folder: Path, what: str) -> None:
    for path in folder.rglob("*.nbi" if what == "empty index" else "*.nbc"):
        content = path.read_bytes()
        path.write_bytes(content[: len(content) // 2] if what == "half the code" else b"")


@pytest.mark.parametrize("what", ["empty index", "empty code", "half the code"])
def test_a_damaged_cache_is_compiled_anew_said_once_and_repaired(filled: Path, tmp_path: Path, what: str) -> None:
    folder = tmp_path / "kernels"
    shutil.copytree(filled, folder)
    for path in (folder, *folder.rglob("*")):
        path.chmod(0o755)
    damage(folder, what)
    answered = classify(folder, tmp_path, LEVEL)
    assert answered.returncode == 0, answered.stderr
    assert '"label":"positive"' in answered.stdout
    assert answered.stderr.count("\n") == 1, answered.stderr
    assert answered.stderr.startswith(f"compiled kernels in {folder}")
    again = classify(folder, tmp_path, LEVEL)
    assert again.stderr == ""
    assert "data loaded from" in again.stdout
    assert "saved to" not in again.stdout


def test_without_any_folder_kernels_are_compiled_in_memory(tmp_path: Path) -> None:
    """Neither NUMBA_CACHE_DIR nor a place beside the source or of the user."""
    program = (
        "from numba.core import caching\n"
        "def nowhere(self): raise OSError(30, 'Read-only file system')\n"
        "caching._CacheLocator.ensure_cache_path = nowhere\n"
        "import beexformer.cli\n"
        "beexformer.cli.main()\n"
    )
    env = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    answered = subprocess.run(
        [sys.executable, "-c", program, "classify", "a warm, funny film"],
        env=env | {"BEE_CPU": LEVEL},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert answered.returncode == 0, answered.stderr
    assert '"label":"positive"' in answered.stdout
    assert answered.stderr.startswith("there is no folder to keep compiled kernels in")
    assert answered.stderr.count("\n") == 1


def test_a_full_disk_costs_a_sentence(tmp_path: Path) -> None:
    """As the system says it when a file is opened to be written."""
    program = (
        "import contextlib, errno, os\n"
        "from numba.core import caching\n"
        "@contextlib.contextmanager\n"
        "def full(self, path):\n"
        "    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), path)\n"
        "    yield\n"
        "caching.IndexDataCacheFile._open_for_write = full\n"
        "import beexformer.cli\n"
        "beexformer.cli.main()\n"
    )
    answered = subprocess.run(
        [sys.executable, "-c", program, "classify", "a warm, funny film"],
        env=os.environ | {"NUMBA_CACHE_DIR": str(tmp_path), "BEE_CPU": LEVEL},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert answered.returncode == 0, answered.stderr
    assert '"label":"positive"' in answered.stdout
    assert "(No space left on device); they are compiled in memory" in answered.stderr
    assert answered.stderr.count("\n") == 1


def test_an_image_whose_kernels_could_not_be_kept_is_not_built(filled: Path) -> None:
    built = subprocess.run(
        [*OBEDIENT, sys.executable, "-m", "beexformer.model.kernel_cache", "x86-64-v3"],
        env=os.environ | {"NUMBA_CACHE_DIR": str(filled)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert built.returncode != 0
    assert "kernels were compiled and not kept" in built.stderr


def test_kernels_are_compiled_anew_when_any_source_of_theirs_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stamp = kernels.early_exit_forward._cache._cache_file._source_stamp
    assert stamp == kernel_cache.digest_of_sources()
    for source in (ROOT / "model").glob("*.py"):
        shutil.copy(source, tmp_path)
    monkeypatch.setattr(kernel_cache, "__file__", str(tmp_path / "kernel_cache.py"))
    assert kernel_cache.digest_of_sources() == stamp, "where they lie, and since when, says nothing"
    with (tmp_path / "exits.py").open("a") as rule:
        rule.write("\n# another rule\n")
    assert kernel_cache.digest_of_sources() != stamp
