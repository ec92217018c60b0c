"""
The architecture as a test. Arrows go one way: app -> serving half of model -> nothing of ours, report -> model.

The torch side may use the serving half, never the other way; only training loads torch.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SERVING_SIDE = {
    "errors",
    "folders",
    "config",
    "bits",
    "cost",
    "embedding",
    "kernels",
    "kernel_cache",
    "simd",
    "target",
    "exits",
    "flops",
    "tokenizer",
    "checkpoint",
    "engine",
}
TORCH_SIDE = {
    "augment",
    "binarize",
    "body",
    "calibrate",
    "card",
    "data",
    "distill",
    "encoders",
    "evaluate",
    "export",
    "network",
    "precision",
    "prepare",
    "recipe",
    "record",
    "restart",
    "show",
    "teacher",
    "train",
    "trainer",
    "twin",
}
TORCH = {f"model.{name}" for name in TORCH_SIDE} | {"report", "torch", "transformers", "pyarrow", "matplotlib"}
APP = sorted((ROOT / "app").glob("**/*.py"))
MODEL = sorted((ROOT / "model").glob("*.py"))
REPORT = sorted((ROOT / "report").glob("*.py"))


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module that is imported, as a dotted name; `from a import b` counts as a and as a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute here"
            assert node.module
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def under(names: Iterator[str], packages: set[str]) -> set[str]:
    return {name for name in names if any(name == p or name.startswith(f"{p}.") for p in packages)}


def parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def names(paths: list[Path]) -> list[str]:
    return [path.name for path in paths]


def test_every_module_of_model_is_on_one_side() -> None:
    assert {path.stem for path in MODEL} - {"__init__"} <= SERVING_SIDE | TORCH_SIDE


@pytest.mark.parametrize("path", MODEL, ids=names(MODEL))
def test_model_knows_no_service(path: Path) -> None:
    assert not under(imports(parse(path)), {"app", "report", "fastapi", "starlette", "uvicorn", "tests", "bench"})


@pytest.mark.parametrize("path", REPORT, ids=names(REPORT))
def test_the_report_knows_no_service(path: Path) -> None:
    assert not under(imports(parse(path)), {"app", "fastapi", "starlette", "uvicorn", "tests", "bench"})


@pytest.mark.parametrize("name", sorted(SERVING_SIDE | {"__init__"}))
def test_the_serving_side_knows_no_training(name: str) -> None:
    assert not under(imports(parse(ROOT / "model" / f"{name}.py")), TORCH)


@pytest.mark.parametrize("path", APP, ids=names(APP))
def test_app_knows_no_training(path: Path) -> None:
    tree = parse(path)
    if path.name == "cli.py":  # whose verbs may load it, when they are called
        tree.body = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
    assert not under(imports(tree), TORCH | {"tests", "bench"})


def test_the_scheduler_knows_neither_http_nor_models() -> None:
    foreign = {"app", "model", "fastapi", "starlette", "uvicorn", "prometheus_client"}
    assert not under(imports(parse(ROOT / "app" / "scheduler.py")), foreign)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("app.main", {"torch", "transformers", "pyarrow", "matplotlib"}),
        ("app.cli", {"torch", "numpy", "numba", "fastapi", "uvicorn", "pydantic"}),  # --help answers at once
    ],
)
def test_importing_does_not_load(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; loaded = {absent!r} & set(sys.modules); assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_importing_does_nothing() -> None:
    code = "import threading, logging, app.main; assert threading.active_count() == 1; assert not logging.root.handlers"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
