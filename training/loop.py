"""
The loop that trains backbones and tasks. An objective says what a batch costs; here are the optimizer, the learning
rate, the shapes and the budget.

On a CUDA device a whole step, from ids to the moved weights, is captured once for every shape and replayed: launching
a thousand small kernels costs more than their arithmetic. Networks can be compiled: then there are fewer kernels to
replay, and fewer passes over memory on a CPU. Nothing is read back but every `every` steps.

A budget is a number of tokens or of seconds. The rate follows the share of it that is spent: up linearly over
`warmup`, then down linearly to zero, so a run that is given half the time ends at zero just the same.
"""

import math
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from beexformer.model.errors import TrainingError
from beexformer.training import device as devices
from beexformer.training.buckets import Feed


class Objective(Protocol):
    """What is learned. `parts` names the rows of what `losses` answers beside the loss, each a number a block."""

    parts: tuple[str, ...]

    def parameters(self) -> list[Tensor]: ...

    def losses(self, ids: Tensor, mask: Tensor, spec: Tensor) -> tuple[Tensor, Tensor]:
        """Rows [B, L], their mask and specs -> the loss, a scalar, and its parts [P, C], detached."""
        ...

    def constrain(self) -> None:
        """After every step, as part of it."""
        ...

    def compile(self) -> None:
        """Have its networks compiled when they are called for the first time."""
        ...

    def uncompile(self) -> None:
        """Have them as they are written again, for what comes after training."""
        ...

    def state(self) -> dict[str, Any]: ...

    def restore(self, state: dict[str, Any]) -> None: ...


@dataclass(frozen=True)
class Budget:
    """How long to train, and how fast."""

    rate: float
    tokens: float = math.inf  # pads counted
    seconds: float = math.inf
    warmup: float = 0.03
    clip: float | None = None
    every: int = 100  # steps between reports, and at most so many are lost by a kill
    compile: bool = False  # the objective's networks
    graphs: bool = True  # on a CUDA device


def share_of_rate(progress: float, warmup: float) -> float:
    """Share of the budget spent -> share of the peak rate."""
    rising = min(1.0, (progress + 1e-3) / warmup) if warmup else 1.0
    return rising * max(1.0 - progress, 0.003)


@dataclass
class Report:
    """What a stretch of steps came to."""

    step: int
    tokens: int
    seconds: float
    tokens_per_second: float
    steps_per_second: float
    rate: float
    parts: dict[str, list[float]]

    def __str__(self) -> str:
        parts = "  ".join(f"{name} {' '.join(f'{x:.3f}' for x in row)}" for name, row in self.parts.items())
        return (
            f"step {self.step}, {self.tokens / 1e6:.1f} M tokens, {self.seconds:.0f} s, "
            f"{self.tokens_per_second / 1e3:.0f}k tokens/s, {self.steps_per_second:.1f} steps/s, "
            f"rate {self.rate:.1e}: {parts}"
        )


@dataclass
class _Captured:
    graph: Any
    spec: Tensor


def norms_agree(plain: Tensor, compiled: Tensor) -> bool:
    """Whether the gradients of two runs have much the same norms, [parameters] each. Dropout draws anew, so no more is
    asked than a factor of four, of the longest ones: short ones are sums of what nearly cancels."""
    count = plain > 0.05 * plain.max()
    ratio = compiled[count] / plain[count]
    return bool(((ratio > 0.25) & (ratio < 4.0)).all())


class Loop:
    """An objective being trained; `state` and `restore` are all that a resumed run needs."""

    def __init__(self, objective: Objective, feed: Feed, budget: Budget, device: torch.device) -> None:
        self.objective, self.feed, self.budget, self.device = objective, feed, budget, device
        cuda = device.type == "cuda"
        self.moving = objective.parameters()
        rate: Any = torch.tensor(0.0, device=device) if cuda else 0.0
        self.optimizer = torch.optim.Adam(self.moving, lr=rate, fused=True, capturable=cuda)
        for group in self.optimizer.param_groups:  # LambdaLR multiplies what it finds
            group["initial_lr"] = budget.rate
        self.graphs: dict[int, _Captured] = {}
        self.eager = not (cuda and budget.graphs)
        self.stream: Any = torch.cuda.Stream(device) if cuda else None
        self.total: Tensor | None = None  # of the parts, since the last report
        self.step = self.tokens = 0
        self.seconds = 0.0  # of earlier runs of this loop
        self.began: float | None = None
        self.history: list[Report] = []
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda _: share_of_rate(self.progress, budget.warmup), last_epoch=0
        )

    @property
    def spent(self) -> float:
        return self.seconds + (time.monotonic() - self.began if self.began is not None else 0.0)

    @property
    def progress(self) -> float:
        budget = self.budget
        return min(1.0, max(self.tokens / budget.tokens, self.spent / budget.seconds))

    def _advance(self, spec: Tensor, length: int) -> None:
        """One step; what a graph captures."""
        ids, mask = self.feed.rows(spec, length)
        loss, parts = self.objective.losses(ids, mask, spec)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        if self.budget.clip:
            torch.nn.utils.clip_grad_norm_(self.moving, self.budget.clip)
        self.optimizer.step()
        with torch.no_grad():
            self.objective.constrain()
            if self.total is None:
                self.total = torch.zeros_like(parts)
            self.total.add_(parts.detach())

    def _capture(self, samples: dict[int, Tensor]) -> None:
        """A graph for every shape, longest rows first: their memory serves the others."""
        pool = None
        for length in sorted(samples, reverse=True):
            spec = samples[length].clone()
            self._advance(spec, length)
            self.optimizer.zero_grad(set_to_none=True)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, stream=self.stream):
                self._advance(spec, length)
            pool = graph.pool()
            self.graphs[length] = _Captured(graph, spec)
        assert self.total is not None
        self.total.zero_()

    def prepare(self) -> None:
        """Everything that happens once, before the clock of the budget runs. Steps that warm up are taken at rate zero
        and leave no trace in the optimizer either."""
        if self.budget.compile:
            self._compile()
        if self.eager or self.graphs:
            return
        samples = self.feed.samples()
        self._rate(0.0)
        before = {
            p: {name: x.clone() for name, x in kept.items() if isinstance(x, Tensor)}
            for p, kept in self.optimizer.state.items()
        }
        try:
            self._capture(samples)
        except RuntimeError as error:
            self.graphs, self.eager = {}, True
            warnings.warn(f"no graphs, every kernel is launched by itself: {error}", stacklevel=2)
        for p, kept in self.optimizer.state.items():
            for name, x in kept.items():
                if isinstance(x, Tensor):
                    x.copy_(before[p][name]) if p in before else x.zero_()
        self._wait()

    def _compile(self) -> None:
        """Compile for every shape, shortest rows first, and see that gradients are what they are uncompiled: of the
        shortest rows as long, of all others finite. Compilers gave none at all and such as are no numbers, without a
        word (docs/log.md). Where it fails, go on without."""
        samples = sorted(self.feed.samples().items())
        plain, failed = self.gradient_norms(*samples[0]), None
        self.objective.compile()
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module=r"torch\._inductor")  # advice to those who write torch
                for nth, (length, spec) in enumerate(samples):
                    compiled = self.gradient_norms(length, spec)
                    if not bool(torch.isfinite(compiled).all()):
                        failed = "compiled gradients are not finite"
                    elif nth == 0 and not norms_agree(plain, compiled):
                        failed = "compiled gradients are not those of the network"
        except RuntimeError as error:
            failed = " ".join(str(error).split("\n")[:2])  # who failed, and at what
        if failed:
            self.optimizer.zero_grad(set_to_none=True)
            self.objective.uncompile()
            warnings.warn(f"{failed}; training goes on uncompiled, half as fast", stacklevel=2)

    def gradient_norms(self, length: int, spec: Tensor) -> Tensor:
        """The Euclidean norm of each parameter's gradient for these rows, [parameters] float32."""
        ids, mask = self.feed.rows(spec, length)
        self.objective.losses(ids, mask, spec)[0].backward()
        none = torch.zeros((), device=self.device)
        norms = torch.stack([none if p.grad is None else p.grad.float().norm() for p in self.moving])
        self.optimizer.zero_grad(set_to_none=True)
        return norms

    def _wait(self) -> float:
        """Wait for what was launched, but not for other loops of this process; the time then (monotonic, seconds)."""
        if self.stream is not None:
            self.stream.synchronize()
        return time.monotonic()

    def _rate(self, rate: float) -> None:
        for group in self.optimizer.param_groups:
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def train_step(self, length: int, spec: Tensor) -> None:
        self.scheduler.step()
        captured = self.graphs.get(length)
        if captured is None:
            self._advance(spec, length)
        else:
            captured.spec.copy_(spec)
            captured.graph.replay()
        self.step += 1
        self.tokens += len(spec) * length

    def run(self, report: Callable[[Report], None], keep: Callable[["Loop"], None]) -> list[Report]:
        """Train until the budget is spent. `report` is told of every stretch of steps, and `keep` called after it, to
        save `state`."""
        if self.progress >= 1:
            return self.history
        if self.stream is None:
            return self._run(report, keep)
        self.stream.wait_stream(torch.cuda.current_stream(self.device))
        with torch.cuda.stream(self.stream):
            result = self._run(report, keep)
        torch.cuda.current_stream(self.device).wait_stream(self.stream)
        return result

    def _run(self, report: Callable[[Report], None], keep: Callable[["Loop"], None]) -> list[Report]:
        self.prepare()
        with warnings.catch_warnings():
            # a replayed graph steps the optimizer unseen by the schedule
            warnings.filterwarnings("ignore", message=".*lr_scheduler.step.*")
            self.began = time.monotonic()
            since, steps, tokens = self.began, self.step, self.tokens
            stream, done = iter(self.feed), False
            while not done:  # no batch is taken that isn't learned from: a state says where to go on
                self.train_step(*next(stream))
                if self.device.type == "cuda" and self.step % 20 == 0:
                    self._wait()  # else the clock runs ahead of the device
                done = self.progress >= 1
                if self.step % self.budget.every == 0 or done:
                    now = self._wait()
                    self._note(self.step - steps, self.tokens - tokens, now - since)
                    report(self.history[-1])
                    keep(self)
                    since, steps, tokens = time.monotonic(), self.step, self.tokens
        self.seconds, self.began = self.spent, None
        if self.budget.compile:
            self.objective.uncompile()
        return self.history

    def _note(self, steps: int, tokens: int, seconds: float) -> None:
        assert self.total is not None
        mean = (self.total / max(1, steps)).tolist()
        self.total.zero_()
        if not all(math.isfinite(x) for row in mean for x in row):
            raise TrainingError(f"a loss is not finite at step {self.step}: {mean}; lower the rate")
        rate = float(self.optimizer.param_groups[0]["lr"])
        parts = dict(zip(self.objective.parts, mean, strict=True))
        self.history.append(Report(self.step, self.tokens, self.spent, tokens / seconds, steps / seconds, rate, parts))

    def facts(self) -> dict[str, Any]:
        """What was done, JSON-ready."""
        last = self.history[-1] if self.history else None
        return {
            "device": devices.describe(self.device),
            "steps": self.step,
            "padded_tokens": self.tokens,
            "seconds": round(self.seconds, 1),
            "rate": self.budget.rate,
            "tokens_a_step": self.feed.tokens,
            "graphs": len(self.graphs),
            "losses": last and {name: [round(x, 4) for x in row] for name, row in last.parts.items()},
        }

    def state(self) -> dict[str, Any]:
        return {
            "objective": self.objective.state(),
            "optimizer": self.optimizer.state_dict(),
            "feed": self.feed.state(),
            "random": torch.get_rng_state(),  # of dropout on a CPU
            "step": self.step,
            "tokens": self.tokens,
            "seconds": self.spent,
            "history": [asdict(report) for report in self.history],
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.objective.restore(state["objective"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.feed.restore(state["feed"])
        torch.set_rng_state(state["random"])
        self.step, self.tokens, self.seconds = state["step"], state["tokens"], state["seconds"]
        self.history = [Report(**report) for report in state["history"]]
