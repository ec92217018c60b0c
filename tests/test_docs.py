"""The documents say what the code does. What needs a running service is in tests/service/test_readme.py."""

import ast
import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from beexformer.app.errors import BUG, TABLE
from beexformer.app.settings import Settings, markdown
from beexformer.cli import app
from beexformer.model.checkpoint import SHIPPED

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DESIGN = (ROOT / "docs" / "design.md").read_text()
GROUP: Any = typer.main.get_group(app)
VERBS = "|".join(GROUP.list_commands(None))
COMMANDS = sorted(set(re.findall(rf"beexformer ((?:{VERBS})\b[^\n`#|>]*)", README)))
EQUATIONS = re.findall(r"^\| eq\. (\d+)(?:-(\d+))? \|", DESIGN, re.MULTILINE)
SYMBOLS = sorted(set(re.findall(r"`((?:app|model|training)/\w+\.py):([\w.]+)`", DESIGN)))


def flags(verb: str) -> set[str]:
    if verb == "serve":  # its flags are made from the settings
        return {f"--{name.replace('_', '-')}" for name in Settings.model_fields}
    command = GROUP.get_command(None, verb)
    return {flag for parameter in command.params for flag in parameter.opts}


def names(body: list[ast.stmt], prefix: str = "") -> set[str]:
    """What a module defines, members of its classes as Class.member."""
    result = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            result.add(prefix + node.name)
        if isinstance(node, ast.ClassDef):
            result |= names(node.body, f"{prefix}{node.name}.")
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            result |= {prefix + target.id for target in targets if isinstance(target, ast.Name)}
    return result


def test_every_setting_is_in_the_readme() -> None:
    assert markdown() in README, f"put this table into README.md:\n{markdown()}"


def test_the_newest_entry_of_the_changelog_is_this_version() -> None:
    newest = re.search(r"^## (\S+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest
    assert newest[1] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]


def test_the_readme_shows_every_verb() -> None:
    assert {command.split()[0] for command in COMMANDS} == set(GROUP.list_commands(None))


@pytest.mark.parametrize("command", COMMANDS)
def test_flags_in_the_readme_exist(command: str) -> None:
    assert set(re.findall(r"--[a-z-]+", command)) <= flags(command.split()[0])


@pytest.mark.parametrize("verb", re.findall(r"\bmake (\S+?)[`\s]", README))
def test_make_verbs_in_the_readme_exist(verb: str) -> None:
    assert re.search(rf"^{re.escape(verb)}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


@pytest.mark.parametrize(("status", "slug"), sorted({kind[:2] for kind in (*TABLE.values(), BUG)}))
def test_every_problem_is_in_the_readme(status: int, slug: str) -> None:
    assert re.search(rf"^\| {status} \|.*`{slug}`", README, re.MULTILINE)


@pytest.mark.parametrize("package", ["app", "model", "training", "beexformer", "report"])
def test_every_module_is_in_the_tree_and_the_other_way_round(package: str) -> None:
    [tree] = re.findall(rf"^{package}/ .*\n((?:  .*\n)+)", README, re.MULTILINE)
    modules = {path.name for path in (ROOT / package).glob("*.py")} - {"__init__.py"}
    assert set(re.findall(r"^  (\w+\.py) ", tree, re.MULTILINE)) == modules


def test_the_accuracy_table_says_what_the_checkpoints_say() -> None:
    rows = re.findall(r"^\| `([\w-]+)`, .*", README, re.MULTILINE)
    shipped = {folder.name: folder for folder in SHIPPED.iterdir() if (folder / "config.json").exists()}
    assert sorted(rows) == sorted(shipped)
    for name, folder in shipped.items():
        dev = json.loads((folder / "evaluation.json").read_text())["dev"]
        size = sum(path.stat().st_size for path in folder.iterdir())
        cells = [
            str(dev["rows"]),
            {"f1": "F1", "matthews": "Matthews"}.get(dev["metric"], dev["metric"]),
            f"{100 * dev['score']:.1f}",
            f"{100 * dev['full_depth_score']:.1f}",
            f"{dev['flops_saved_ratio']:.1%}",
            " ".join(map(str, dev["exits"])),
            f"{size / 1e6:.1f} MB",
        ]
        assert re.search(rf"^\| `{name}`, [^|]+ \| {re.escape(' | '.join(cells))} \|", README, re.MULTILINE), cells


def test_every_equation_is_in_the_design_once() -> None:
    numbers = [number for low, high in EQUATIONS for number in range(int(low), int(high or low) + 1)]
    assert numbers == list(range(1, 26))


@pytest.mark.parametrize(("path", "symbol"), SYMBOLS)
def test_what_the_design_points_to_exists(path: str, symbol: str) -> None:
    assert symbol in names(ast.parse((ROOT / path).read_text()).body)
