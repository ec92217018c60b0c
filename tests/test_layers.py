"""
The architecture as a test. Arrows go one way: app -> model, training -> model, report -> training and model.

Nothing in app or model imports training or report; only training loads torch.
"""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TRAINING = {"beexformer.training", "beexformer.report", "torch", "transformers", "pyarrow", "matplotlib"}
SERVICE = {"beexformer.app", "fastapi", "starlette", "uvicorn"}
APP, MODEL, TRAIN, REPORT = (
    sorted((ROOT / folder).glob("**/*.py")) for folder in ("app", "model", "training", "report")
)
PUBLIC = sorted((ROOT / "beexformer").glob("*.py"))  # the folders below are links to those above
COMPILED = {"kernels.py", "simd.py"}  # one function a kernel: what is compiled as one is written as one


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


@pytest.mark.parametrize("path", [*APP, *MODEL], ids=str)
def test_serving_knows_no_training(path: Path) -> None:
    tree = parse(path)
    if path.name in ("tables.py", "chunked_output.py"):  # Parquet, when such a file is met
        assert under(imports(tree), TRAINING) == {"pyarrow", "pyarrow.parquet"}
        return
    assert not under(imports(tree), TRAINING | {"tests", "bench"})


@pytest.mark.parametrize("path", [*MODEL, *TRAIN, *REPORT], ids=str)
def test_only_the_service_knows_http(path: Path) -> None:
    assert not under(imports(parse(path)), SERVICE | {"tests", "bench"})


@pytest.mark.parametrize("path", TRAIN, ids=str)
def test_training_knows_no_report(path: Path) -> None:
    assert not under(imports(parse(path)), {"beexformer.report"})


@pytest.mark.parametrize("path", [*APP, *MODEL, *TRAIN, *REPORT, *PUBLIC], ids=str)
def test_files_and_functions_are_short(path: Path) -> None:
    if path.name in COMPILED:
        return
    assert len(path.read_text().splitlines()) <= 400
    functions = (node for node in ast.walk(parse(path)) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
    lengths = [(function.name, (function.end_lineno or 0) - function.lineno + 1) for function in functions]
    assert not [(name, lines) for name, lines in lengths if lines > 50]


def test_the_scheduler_knows_neither_http_nor_models() -> None:
    foreign = {"beexformer", "fastapi", "starlette", "uvicorn", "prometheus_client"}
    assert not under(imports(parse(ROOT / "app" / "scheduler.py")), foreign)


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("beexformer.app.main", {"torch", "transformers", "pyarrow", "matplotlib"}),
        # probes are answered before any of these is loaded
        ("beexformer.app.serve", {"torch", "numpy", "numba", "fastapi"}),
        # --help answers at once
        ("beexformer.cli", {"torch", "numpy", "numba", "fastapi", "uvicorn", "pydantic", "beexformer.training"}),
        ("beexformer.training.cli", {"torch", "numpy", "numba", "pydantic", "transformers"}),
        ("beexformer.report.cli", {"torch", "numpy", "numba", "pydantic", "matplotlib"}),
    ],
)
def test_importing_does_not_load(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; loaded = {absent!r} & set(sys.modules); assert not loaded, loaded"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def test_importing_does_nothing() -> None:
    code = (
        "import threading, logging, beexformer.app.main; "
        "assert threading.active_count() == 1; assert not logging.root.handlers"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)
