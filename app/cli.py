"""
The verbs of serving: `beexformer serve | classify | models`. Thin: each calls one function.

Heavy imports happen inside the verbs, so that `--help` answers at once.
"""

import json
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from beexformer.model.errors import BEEError

app = typer.Typer()
Checkpoint = Annotated[
    Path | None, typer.Option(help="A checkpoint folder, or a folder of them; default: the shipped ones.")
]


def _paths(checkpoint: Path | None) -> list[Path]:
    return [checkpoint] if checkpoint else []


@app.command(
    # all flags are the settings, declared once in beexformer.app.settings; "--help" goes there too
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "help_option_names": []}
)
def serve(context: typer.Context) -> None:
    """Serve checkpoints over HTTP; `serve --help` lists the settings."""
    from pydantic import ValidationError
    from pydantic_settings import CliApp, SettingsError

    from beexformer.app.settings import Settings, sentences

    try:
        settings = CliApp.run(Settings, cli_args=context.args)
    except ValidationError as error:
        raise BEEError("\nbeexformer: ".join(sentences(error))) from None
    except SettingsError as error:
        raise BEEError(str(error)) from None
    os.environ["BEE_CPU"] = settings.cpu  # the kernels read it when they are imported, here and in worker processes
    from beexformer.app.main import serve as run

    run(settings)


@app.command()
def classify(
    source: Annotated[
        str, typer.Argument(help="A sentence; or a .txt file, one text a line; or .jsonl; or - for stdin.")
    ],
    text_pair: Annotated[str | None, typer.Option(help="The second text of a sentence pair.")] = None,
    checkpoint: Checkpoint = None,
    model: Annotated[str | None, typer.Option(help="Name of the model, where there are several.")] = None,
    delta: Annotated[float | None, typer.Option(help="Leave when a block gains less than this; -1 to 1.")] = None,
    entropy_threshold: Annotated[
        float | None, typer.Option(help="Leave once the entropy is below this share of ln(classes); 0 to 1.")
    ] = None,
    min_blocks: Annotated[int | None, typer.Option(help="Run at least so many blocks.")] = None,
    max_blocks: Annotated[int | None, typer.Option(help="Run at most so many blocks.")] = None,
    profile: Annotated[str | None, typer.Option(help="A profile of the model, which sets the options above.")] = None,
    jsonl: Annotated[bool, typer.Option("--jsonl", help="Lines are JSON objects whatever the file's name.")] = False,
    threads: Annotated[int, typer.Option(help="Engine threads; 0 for one a CPU.", min=0)] = 0,
) -> None:
    """Classify a sentence, a file or stdin; one JSON object a line on stdout, in order.

    A line that can't be answered gives a problem with its line number; the rest goes on, and the exit code is 1."""
    from beexformer.app.batch_inference import classify_file, classify_text, is_file
    from beexformer.app.settings import cpus
    from beexformer.model.options import ExitOptions
    from beexformer.model.registry import Registry

    engine = Registry(_paths(checkpoint), model).get()
    options = ExitOptions(
        delta=delta,
        entropy_threshold=entropy_threshold,
        min_blocks=min_blocks,
        max_blocks=max_blocks,
        profile=profile,
    )
    if is_file(source, jsonl):
        if text_pair is not None:
            raise BEEError("--text-pair goes with a sentence; in a .jsonl file each line may have a text_pair")
        bad = classify_file(engine, source, options, jsonl=jsonl, threads=threads or cpus())
        if bad:
            print(f"beexformer: lines that could not be answered: {bad}", file=sys.stderr)
            raise SystemExit(1)
        return
    print(classify_text(engine, source, text_pair, options))


@app.command()
def models(
    checkpoint: Checkpoint = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON array, everything the checkpoints say.")] = False,
) -> None:
    """List checkpoints: labels, size, score on the development data and FLOPs saved."""
    from beexformer.model.registry import Registry

    descriptions = [engine.description for engine in Registry(_paths(checkpoint), None)]
    if as_json:
        print(json.dumps(descriptions, indent=1, ensure_ascii=False))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "labels", "size", "dev score", "FLOPs saved")
    for described in descriptions:
        dev = described["evaluation"].get("dev", {})
        score, saved = (f"{dev[key]:.1%}" if key in dev else "-" for key in ("score", "flops_saved_ratio"))
        table.add_row(
            described["name"], ", ".join(described["labels"]), f"{described['size_bytes'] / 1e6:.2f} MB", score, saved
        )
    Console().print(table)
