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

ROOT = Path(__file__).parent.parent
BEEXFORMER = Path(sys.executable).parent / "beexformer"
LEVEL = "x86-64-v2"
OBEDIENT = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []

pytestmark = [
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
    assert f"data loaded from '{tmp_path}" in answered.stdout
    assert "saved to" not in answered.stdout


def test_what_is_not_there_is_compiled_and_kept_elsewhere_for_a_while(filled: Path, tmp_path: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in filled.rglob("*")}
    answered = classify(filled, tmp_path, "native")
    assert answered.returncode == 0, answered.stderr
    assert f"data saved to '{tmp_path}" in answered.stdout
    assert {path: path.stat().st_mtime_ns for path in filled.rglob("*")} == before
    assert not list(tmp_path.iterdir()), "the folder of links goes with its process"


def test_without_a_temporary_folder_one_sentence_says_what_to_do(filled: Path) -> None:
    program = (
        "import tempfile\n"
        "tempfile._candidate_tempdir_list = lambda: ['/nonexistent']\n"  # else it finds another one
        "import beexformer.cli\n"
        "beexformer.cli.main()\n"
    )
    refused = subprocess.run(
        [*OBEDIENT, sys.executable, "-c", program],
        env=os.environ | {"NUMBA_CACHE_DIR": str(filled)},
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"beexformer: {filled} is read-only and there is no temporary folder")
