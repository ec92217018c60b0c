"""
Progress of a training run for people: a bar on a terminal, a line now and then elsewhere.
"""

import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from beexformer.training.teacher import Report


class RunProgress:
    """A bar with what matters beside it; `say` prints a line above it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[beside]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None, beside="")

    def stage(self, name: str) -> Report:
        """Begin a stage; answers the callback that moves its bar."""
        self.bar.reset(self.task, description=name, total=None, beside="")
        said = time.monotonic()

        def report(done: int, total: int, beside: str) -> None:
            nonlocal said
            self.bar.update(self.task, completed=done, total=total, beside=beside)
            if not self.console.is_terminal and (time.monotonic() - said > 30 or done == total):
                said = time.monotonic()
                self.console.print(f"{name}: {done}/{total} {beside}", highlight=False, soft_wrap=True)

        return report

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)
