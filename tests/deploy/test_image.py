"""
What the image is made of, as far as it can be seen without building it: `deploy/rehearse.sh` builds and tries it.

    pytest tests/deploy/test_image.py
"""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
DOCKERFILE = (ROOT / "Dockerfile").read_text()
STAGES = dict(
    re.findall(r"^FROM \S+ AS (\S+)\n(.*?)(?=^FROM |\Z)", DOCKERFILE, re.MULTILINE | re.DOTALL)
)  # name -> instructions
LABELS = {"title", "description", "licenses", "version", "revision", "created", "source"}


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).parent / "hadolint"
    checked = subprocess.run([hadolint, ROOT / "Dockerfile"], capture_output=True, text=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("stage", ["train", "serve"])
def test_what_runs_is_not_root_and_got_only_the_environment(stage: str) -> None:
    user = re.search(r"^USER (\d+):(\d+)$", STAGES[stage], re.MULTILINE)
    assert user
    assert "0" not in user.groups()
    assert re.findall(r"^COPY (.*)$", STAGES[stage], re.MULTILINE) == [f"--from=build-{stage} /opt /opt"]
    assert "RUN" not in STAGES[stage]


def test_a_build_without_a_target_is_the_service() -> None:
    assert list(STAGES)[-1] == "serve"


def test_the_labels_say_what_it_was_built_from() -> None:
    assert set(re.findall(r"org\.opencontainers\.image\.(\w+)=", STAGES["serve"])) == LABELS
    given = set(re.findall(r"--build-arg (\w+)=", (ROOT / "Makefile").read_text())) - {"PYTHON_IMAGE"}
    assert given == set(re.search(r"^ARG (VERSION.*)$", STAGES["serve"], re.MULTILINE)[1].replace("=", "").split())  # type: ignore[index]


def test_nothing_enters_the_build_that_is_not_named() -> None:
    rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert rules[0] == "*"
    wanted = {path.removeprefix("!") for path in rules if path.startswith("!")}
    copied = {
        path
        for stage in STAGES.values()
        for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", stage, re.MULTILINE)
        for path in sources.split()
    }
    assert wanted == copied
    assert all((ROOT / path).exists() for path in wanted)
