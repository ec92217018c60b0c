"""
Progress of a training run for people: a bar on a terminal, a line now and then elsewhere.
"""

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Report = Callable[[int, int, str], None]
"""Done, total, and what is shown after the bar."""


class RunProgress:
    """A bar with a postfix; `say` prints a line above it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[postfix]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None, postfix="")

    def stage(self, name: str) -> Report:
        """Begin a stage; answers the callback that moves its bar."""
        self.bar.reset(self.task, description=name, total=None, postfix="")
        said = time.monotonic()

        def report(done: int, total: int, postfix: str) -> None:
            nonlocal said
            self.bar.update(self.task, completed=done, total=total, postfix=postfix)
            if not self.console.is_terminal and (time.monotonic() - said > 30 or done == total):
                said = time.monotonic()
                self.console.print(f"{name}: {done}/{total} {postfix}", highlight=False, soft_wrap=True)

        return report

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)
