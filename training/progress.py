"""
Progress of a training run for people: a bar on a terminal, a line now and then elsewhere.

Where a run's phases are known ahead (`plan`), one bar goes over all of them, and says the time that is left of the
whole; else each stage has the bar to itself.
"""

import time
from collections.abc import Callable, Mapping
from datetime import timedelta

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskProgressColumn, TextColumn
from rich.text import Text

Report = Callable[[int, int, str], None]
"""Done, total, and what is shown after the bar."""
SAID = 30.0  # seconds between two lines where there is no terminal


class _Left(ProgressColumn):
    """Time left of what the bar goes over."""

    def render(self, task: Task) -> Text:
        left = task.fields["left"]()
        return Text("" if left is None else f"{timedelta(seconds=round(left))} left", style="progress.remaining")


class Plan:
    """The phases of a run in their order, with the seconds that each is expected to take, and how far it is. What is
    left of the phase at hand goes by its own speed, later ones by how long finished ones took against what was
    expected."""

    def __init__(self, expected: Mapping[str, float]) -> None:
        self._expected = dict(expected)
        self._names = [*expected]
        self._at, self._share, self._began = -1, 0.0, time.monotonic()
        self._finished = 0.0  # seconds of phases before

    def begin(self, name: str) -> None:
        """The next phase of that name; those between were left out."""
        now = time.monotonic()
        if self._at >= 0:
            self._finished += now - self._began
        self._at, self._share, self._began = self._names.index(name), 0.0, now

    def moved(self, share: float) -> None:
        self._share = share

    @property
    def done(self) -> float:
        """Share of the whole."""
        before = sum(self._expected[name] for name in self._names[: max(self._at, 0)])
        now = self._share * self._expected[self._names[self._at]] if self._at >= 0 else 0.0
        return (before + now) / sum(self._expected.values())

    def left(self) -> float:
        """Seconds until the end of the last phase."""
        if self._at < 0:
            return sum(self._expected.values())
        own, spent = self._expected[self._names[self._at]], time.monotonic() - self._began
        now = spent * (1 / self._share - 1) if self._share > 0.02 else max(own - spent, 0.1 * own)
        before = sum(self._expected[name] for name in self._names[: self._at])
        pace = min(max(self._finished / before, 0.3), 10.0) if before and self._finished else 1.0
        return now + pace * sum(self._expected[name] for name in self._names[self._at + 1 :])


class RunProgress:
    """A bar with a postfix; `say` prints a line above it."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self.bar = Progress(
            SpinnerColumn(),
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            _Left(),
            TextColumn("{task.fields[postfix]}"),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("reading the rows", total=None, postfix="", left=lambda: None)
        self._plan: Plan | None = None

    def plan(self, expected: Mapping[str, float]) -> None:
        """One bar over these phases from now on: names that say it plainly, in order, and the seconds of each."""
        self._plan = Plan(expected)

    def stage(self, name: str) -> Report:
        """Begin a stage; answers the callback that moves the bar."""
        plan = self._plan
        said = began = time.monotonic()
        share = 0.0

        def left() -> float | None:
            return (time.monotonic() - began) * (1 - share) / share if share else None

        if plan:
            plan.begin(name)
            self.bar.update(self.task, description=name, total=1.0, completed=plan.done, postfix="", left=plan.left)
        else:
            self.bar.reset(self.task, description=name, total=None, postfix="", left=left)

        def report(done: int, total: int, postfix: str) -> None:
            nonlocal said, share
            share = done / total if total else 0.0
            if plan:
                plan.moved(share)
                self.bar.update(self.task, completed=plan.done, postfix=postfix)
            else:
                self.bar.update(self.task, completed=done, total=total, postfix=f"{done}/{total} {postfix}")
            if not self.console.is_terminal and (time.monotonic() - said > SAID or done == total):
                said = time.monotonic()
                self.console.print(f"{name}: {done}/{total} {postfix}", highlight=False, soft_wrap=True)

        return report

    def say(self, text: str) -> None:
        self.console.print(text, highlight=False, soft_wrap=True)
