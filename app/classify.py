"""
The texts of one request on their way to outcomes: tokenized, run in turns, counted. Knows engines, turns and metrics.

A request with little to do is answered on the event loop where it came in, others in turns with one another. Whatever
is wrong with a text, or late, is that text's own outcome.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from pydantic import ValidationError

from beexformer.app.brownout import Brownout
from beexformer.app.context import RequestContext
from beexformer.app.errors import ClientGone, InvalidFields, kind
from beexformer.app.metrics import Metrics
from beexformer.app.scheduler import DeadlineExceeded, Scheduler, Work
from beexformer.app.schemas import ClassifyRequest
from beexformer.app.shadow import Shadow
from beexformer.model.answer import Answer
from beexformer.model.engine import Engine, Row
from beexformer.model.errors import InputError, UnknownModel
from beexformer.model.options import ExitOptions
from beexformer.model.registry import Registry

TOKENIZING = 0.0005  # milliseconds a character, at most
STEP = 2.0  # milliseconds that a text runs for, as predicted, until the loop may look after something else
COUNTED = 32  # outcomes counted in one step
GONE = 0.05  # how often a request that waits looks whether its client is gone, in seconds

Item = ClassifyRequest | ValidationError
Outcome = Answer | Exception


@dataclass(slots=True, eq=False)
class Text:
    """One item; its row once it is tokenized, its outcome in the end, the seconds of both, of a clock and of a CPU, and
    when it ended."""

    item: Item
    index: int
    engine: Engine | None = None
    row: Row | None = None
    outcome: Outcome | None = None
    shifted: bool = False  # its exit options, by brown-out
    own_labels: bool = False  # it named them, in place of the model's
    labels_flops: float = 0.0  # spent on what they are called
    tokenize: float = 0.0
    compute: float = 0.0
    cpu: float = 0.0  # of both
    ended: float = 0.0

    def encode(self, registry: Registry, brownout: Brownout | None, wait: float) -> Iterator[None]:
        """Sets `row`, or says in `outcome` why there can't be one, in steps of about STEP where the text's own labels
        have to be read. `wait` is what brown-out goes by."""
        start, cpu = time.monotonic(), time.thread_time()
        try:
            if isinstance(self.item, ValidationError):
                place = ("body", "items", self.index)
                problems = [{**error, "loc": (*place, *error["loc"])} for error in self.item.errors()]
                raise InvalidFields(problems)
            self.engine = registry.get(self.item.model)
            if self.item.candidate_labels is not None:
                yield from self._read_labels(self.item.candidate_labels)
                start, cpu = time.monotonic(), time.thread_time()
            options: ExitOptions = self.item
            if brownout:
                options = brownout.options(self.item, self.engine, wait)
                self.shifted = options is not self.item
            self.row = self.engine.encode(self.item.text, self.item.text_pair, options, truncate=self.item.truncate)
        except (InvalidFields, UnknownModel, InputError) as error:
            self.outcome = error
        self.tokenize = time.monotonic() - start
        self.cpu += time.thread_time() - cpu

    def _read_labels(self, labels: list[str]) -> Iterator[None]:
        """Sets the engine to one that answers with these labels."""
        assert self.engine
        steps = self.engine.candidates.steps(labels, STEP)
        while not self.own_labels:
            start, cpu = time.monotonic(), time.thread_time()
            try:
                next(steps)
            except StopIteration as end:
                self.engine, self.labels_flops = end.value
                self.own_labels = True
            self.compute += time.monotonic() - start
            self.cpu += time.thread_time() - cpu
            if not self.own_labels:
                yield

    def forward(self) -> Iterator[None]:
        """Sets `outcome`, in steps of about STEP. A failure is a bug, and this text's alone."""
        assert self.engine
        assert self.row
        try:
            forward, left = self.engine.begin(self.row), True
            while left:
                start, cpu = time.monotonic(), time.thread_time()
                left = not forward.advance(STEP)
                self.compute += time.monotonic() - start
                self.cpu += time.thread_time() - cpu
                if left:
                    yield
            self.outcome = forward.answer().with_candidates(self.labels_flops)
        except Exception as error:
            self.outcome = error

    @property
    def characters(self) -> int:
        return 0 if isinstance(self.item, ValidationError) else len(self.item.text) + len(self.item.text_pair or "")


@dataclass(slots=True, eq=False)
class Begun:
    """The texts of a request, when they were begun, and what is done once all of them have their outcomes."""

    texts: list[Text]
    start: float
    future: "asyncio.Future[None]"

    @property
    def answered(self) -> bool:
        """All texts have answers."""
        return all(isinstance(text.outcome, Answer) for text in self.texts)


class Classifier:
    """What answers requests: one a process, on its event loop."""

    def __init__(
        self,
        registry: Registry,
        scheduler: Scheduler,
        metrics: Metrics,
        *,
        brownout: Brownout | None = None,
        shadow: Shadow | None = None,
    ) -> None:
        self._registry, self._scheduler, self._metrics = registry, scheduler, metrics
        self._brownout, self._shadow = brownout, shadow

    def begin(self, items: Sequence[Item], context: RequestContext, timeout: float) -> "Begun":
        """Begin with them; what is short is done when this returns. `timeout` is the deadline, in seconds after the
        request was received."""
        start = time.monotonic()
        texts = [Text(item, i) for i, item in enumerate(items)]
        wait = context.unread + self._scheduler.backlog
        future = self._scheduler.submit(self._steps(texts, wait), timeout - (start - context.received))
        return Begun(texts, start, future)

    async def outcomes(
        self,
        items: Sequence[Item],
        context: RequestContext,
        timeout: float,
        gone: Callable[[], Awaitable[bool]],
    ) -> list[Outcome]:
        """One outcome for each item, in order, each counted. `gone` says whether the client has left."""
        begun: Begun = context.begun or self.begin(items, context, timeout)
        unanswered: Exception = DeadlineExceeded()
        try:
            if not begun.future.done():
                await _wait(begun.future, gone)
            if begun.future.cancelled():
                raise ClientGone
            begun.future.result()
        except Exception as error:
            unanswered = error
        outcomes = []
        for outcome in self.settle(begun, context, unanswered):
            outcomes.append(outcome)
            if len(outcomes) % COUNTED == 0:
                await asyncio.sleep(0)
        return outcomes

    def _steps(self, texts: Sequence[Text], wait: float) -> Work[None]:
        """The work that `texts` are, in steps of a millisecond or two; the first only says how long it will take."""
        expected = _expected(texts, self._registry)
        for i, text in enumerate(texts):
            yield expected[i]
            for _ in text.encode(self._registry, self._brownout, wait):
                yield max(STEP, abs(expected[i]))
            if not text.outcome:
                for _ in text.forward():
                    # what takes longer than expected is expected to take as much longer again
                    yield max(STEP, abs(expected[i] - 1000 * text.compute))
            text.ended = time.monotonic()

    def settle(self, begun: "Begun", context: RequestContext, unanswered: Exception | None = None) -> Iterator[Outcome]:
        """Count what has come of them, one at a time; what has no outcome has `unanswered` for one."""
        texts, before = begun.texts, context.unread
        tokenize, compute = sum([text.tokenize for text in texts]), sum([text.compute for text in texts])
        queue = before + max(0.0, time.monotonic() - begun.start - tokenize - compute)
        context.settled(len(texts), (tokenize, queue, compute))
        for text in texts:
            yield self._count(text, context, begun.start, before, unanswered)

    def _count(
        self, text: Text, context: RequestContext, start: float, before: float, unanswered: Exception | None
    ) -> Outcome:
        name, outcome = text.engine.name if text.engine else None, text.outcome or unanswered
        assert outcome
        if isinstance(outcome, Exception):
            self._metrics.ended(name, kind(outcome)[0], context.seconds)
            return outcome
        assert name
        assert text.engine
        assert text.row
        queue = before + max(0.0, text.ended - start - text.tokenize - text.compute)
        phases = (text.tokenize, queue, text.compute)
        self._metrics.answered(
            name, text.row, outcome, phases, context.seconds, cpu=text.cpu, own_labels=text.own_labels
        )
        if text.shifted:
            self._metrics.shifted(name)
        if self._shadow:
            self._shadow.told(text.engine, text.row, outcome)
        context.answered(outcome)
        asked = isinstance(text.item, ClassifyRequest) and text.item.cost
        return outcome.priced(text.engine.cost) if asked else outcome


def _expected(texts: Sequence[Text], registry: Registry) -> list[float]:
    """Milliseconds of each text and all behind it, by their lengths in characters, half of all blocks if not more are
    asked for. What takes longer is found out after a step."""
    engine, each = registry.get(), []
    C, cost = engine.config.n_block, engine.cost
    for text in texts:
        characters, blocks = text.characters, (C + 1) // 2
        if isinstance(text.item, ClassifyRequest) and text.item.min_blocks:
            blocks = min(C, max(blocks, text.item.min_blocks))
        tokens = min(engine.config.max_tokens, 2 + characters // 4)
        each.append(TOKENIZING * characters + cost.milliseconds(tokens, blocks))
    return list(accumulate(reversed(each)))[::-1]


async def _wait(future: "asyncio.Future[Any]", gone: Callable[[], Awaitable[bool]]) -> None:
    """Until it is done; a client who leaves meanwhile takes the work back."""
    try:
        while not (await asyncio.wait((future,), timeout=GONE))[0]:
            if await gone():
                future.cancel()
    finally:
        future.cancel()  # where this very call is cancelled, the server is ending
