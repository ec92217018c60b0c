"""
Shadow depth: a share of the texts that left early also runs through all blocks, after the answer has been sent, to see
whether the label, or the set of labels, would have been the same. What that costs is never a client's time, but the
machine's.
"""

import asyncio
import logging
import random
from dataclasses import replace
from functools import partial

from beexformer.app.metrics import Metrics
from beexformer.app.scheduler import DeadlineExceeded, Draining, Scheduler, Work
from beexformer.model.answer import Answer
from beexformer.model.engine import Engine, Row

AFTER = 0.01  # seconds, in which the answer is sent
TIMEOUT = 60.0
MOST = 16  # pieces of work that wait, of anybody; beyond, nothing is compared
STEP = 2.0  # milliseconds
log = logging.getLogger("bee.error")


class Shadow:
    """Compares a `ratio` of the answers that it is told of."""

    def __init__(self, ratio: float, scheduler: Scheduler, metrics: Metrics) -> None:
        self._ratio, self._scheduler, self._metrics = ratio, scheduler, metrics

    def told(self, engine: Engine, row: Row, answer: Answer) -> None:
        """A text was answered."""
        if not self._ratio or random.random() >= self._ratio:
            return
        if answer.exit_index == answer.num_blocks:
            self._metrics.shadowed(answer, agreed=True)
        elif self._scheduler.waiting < MOST:
            asyncio.get_running_loop().call_later(AFTER, self._begin, engine, row, answer)

    def _begin(self, engine: Engine, row: Row, answer: Answer) -> None:
        work = self._scheduler.submit(_at_full_depth(engine, row), TIMEOUT)
        work.add_done_callback(partial(self._compare, answer))

    def _compare(self, answer: Answer, work: "asyncio.Future[Answer]") -> None:
        error = None if work.cancelled() else work.exception()
        if not error and not work.cancelled():
            self._metrics.shadowed(answer, agreed=work.result().says == answer.says)
        elif error and not isinstance(error, DeadlineExceeded | Draining):
            log.error("a comparison with full depth failed", exc_info=error)


def _at_full_depth(engine: Engine, row: Row) -> Work[Answer]:
    """The answer to a row after all blocks."""
    C = engine.config.n_block
    left = engine.cost.milliseconds(row.tokens, C)
    yield left
    forward = engine.begin(replace(row, exit=replace(row.exit, entropy_threshold=0.0, min_blocks=C, max_blocks=C)))
    while not forward.advance(STEP):
        left = max(STEP, left - STEP)
        yield left
    return forward.answer()
