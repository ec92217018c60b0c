"""The verb `beexformer report`. Loaded when it is called or listed; what it needs is the extra [train]."""

from pathlib import Path
from typing import Annotated

import typer

from beexformer.training.cli import train_extra
from beexformer.training.flags import Checkpoint

app = typer.Typer()


@app.command()
def report(
    data: Annotated[Path, typer.Option(envvar="BEE_DATA", help="The data folder.")] = Path(),
    runs: Annotated[Path, typer.Option(help="Folder with records of training runs and baselines' answers.")] = Path(
        "docs/report/runs"
    ),
    out: Annotated[Path, typer.Option(help="Folder to write README.md and its pictures into.")] = Path("docs/report"),
    work: Annotated[Path, typer.Option(help="Folder that keeps the weights of a baseline.")] = Path("runs/report"),
    checkpoint: Checkpoint = None,
    encoder: Annotated[bool, typer.Option(help="Fine-tune MiniLM, where its answers aren't kept.")] = True,
    kept_only: Annotated[
        bool, typer.Option("--kept-only", help="Take baselines' answers that are kept, and ask none anew.")
    ] = False,
) -> None:
    """Rebuild the paper's tables and figures from checkpoints, records and data, with baselines and intervals."""
    with train_extra():
        from beexformer.report import tables
    from rich.console import Console

    from beexformer.model.registry import Registry

    engines = Registry([checkpoint] if checkpoint else [], None)
    console = Console(stderr=True)
    path = tables.run(engines, data, runs, out, work, console, encoder=encoder, anew=not kept_only)
    print(path)
