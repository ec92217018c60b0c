"""
The command `beexformer`: the verbs of serving, and those of training and report where these are installed.

A verb of serving loads nothing of training. Whatever is wrong with what was asked is one sentence on stderr and exit
code 2.
"""

import importlib
import importlib.util
import os
import sys
from collections.abc import Mapping
from typing import Any

import typer
from typer.core import TyperGroup

from beexformer.app import cli as serving
from beexformer.model.errors import BEEError, Stopped

LATER = ("beexformer.training", "beexformer.report")  # an image that only serves has neither


class Verbs(TyperGroup):
    """Verbs of serving are known at once; the others when one is called, or when all are listed.

    typer's copy of click has no public names for what is Any here: a context and a command."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*super().list_commands(ctx), *(name for package in LATER for name in _verbs(package))]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if command := super().get_command(ctx, cmd_name):
            return command
        for package in LATER:
            if cmd_name in (verbs := _verbs(package)):
                return verbs[cmd_name]
            if not verbs:
                raise BEEError(
                    f"{cmd_name!r} is no verb of this installation, which only serves; those of training and report "
                    "are in a clone of the repository and in the image `train`"
                )
        return None


app = typer.Typer(
    cls=Verbs,
    name="beexformer",
    help="Text classification on a plain CPU with a 1-bit transformer that stops when another block no longer pays.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(serving.app)


def main() -> None:
    """The console entry."""
    try:
        app()
    except BEEError as error:
        print(f"beexformer: {error}", file=sys.stderr)
        raise SystemExit(130 if isinstance(error, Stopped) else 2) from None
    except BrokenPipeError:  # `beexformer classify - | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(1) from None
    except OSError as error:  # a folder that can't be written, a full disk
        if error.filename is None:
            raise
        print(f"beexformer: {error.filename}: {error.strerror}", file=sys.stderr)
        raise SystemExit(2) from None


def _verbs(package: str) -> Mapping[str, Any]:
    """The verbs of a package by name; none where it isn't installed."""
    if importlib.util.find_spec(package) is None:
        return {}
    app: typer.Typer = importlib.import_module(f"{package}.cli").app
    app.callback()(lambda: None)  # a single verb is still a verb of a group
    return typer.main.get_group(app).commands
