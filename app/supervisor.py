"""
The parent of the workers: forks them, replaces the dead and the hung, passes signals on. It serves nothing itself.

- A worker is a fork of this process, in which everything is loaded and compiled: a successor is there at once, and what
  isn't written to is in memory once. No thread may be alive here, nor an event loop: neither survives a fork.
- A worker that ends is noticed by SIGCHLD; one whose event loop hangs, by its heartbeat in the shared state, counted
  in polls of this process, so that a machine that was suspended doesn't look like hung workers.
- Workers end with this process: the kernel sees to it (PR_SET_PDEATHSIG), and where it doesn't, their channel ends.
- SIGTERM drains, a second one ends at once; SIGINT (a terminal) skips the drain; SIGHUP loads the checkpoints anew.
- A worker asks for other checkpoints over its channel and wakes this process with SIGUSR2. It is answered once all
  workers serve them, or none does. Where workers are being exchanged, a new one's wish waits for the old ones to go.
"""

import contextlib
import ctypes
import gc
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from beexformer.app.listener import shut_out
from beexformer.app.shared_state import ENDED, HUNG, SERVING, STARTING, SharedState
from beexformer.app.worker import MESSAGE_BYTES, Place
from beexformer.model.errors import BEEError

SIGNALS = (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2)
LOOK_SECONDS, QUICK_LOOK_SECONDS = 0.5, 0.02  # between two looks at the workers; where one is about to be ready
MAX_DELAY_SECONDS, MAX_FAILURES = 2.0, 10  # of workers that end before they serve
TRY_AGAIN = "the service is exchanging its workers or ends; try again"
PR_SET_PDEATHSIG = 1
Work = Callable[[Place], None]
log = logging.getLogger("bee.supervisor")


@dataclass(slots=True)
class Child:
    """A worker as its parent sees it."""

    slot: int
    generation: int
    channel: socket.socket
    beats: int = 0
    still: float = 0.0  # seconds of looks at which its beats had not moved
    retired: bool = False
    killed: bool = False


class Supervisor:
    """Keeps `workers` processes that each run `work(place)` and serve on `listener`.

    `reload(asked)` returns new work or raises BEEError; `asked` is what a worker asks for, {} at a SIGHUP. `put_back()`
    is called where workers don't get to serve with the newest work and the one before is in effect again. A replaced
    worker has `drain_seconds` for its connections, the end `end_seconds` in all."""

    def __init__(
        self,
        listener: socket.socket,
        workers: int,
        *,
        health_seconds: float,
        drain_seconds: float,
        end_seconds: float,
        reload: Callable[[dict[str, Any]], Work],
        put_back: Callable[[], None],
    ) -> None:
        self.shared = SharedState(2 * workers + 1)  # two generations at a reload, and the stand-in
        self._listener, self._workers = listener, workers
        self._health_seconds, self._drain_seconds, self._end_seconds = health_seconds, drain_seconds, end_seconds
        self._reload, self._tell_put_back = reload, put_back
        self.work: Work | None = None  # what the next worker does
        self._terminal = os.isatty(0)
        self._children: dict[int, Child] = {}
        self._generation = 0
        self._failures = 0  # workers in a row that ended before they served
        self._not_before = 0.0
        self._drained: float | None = None  # when the drain is over
        self._over: float | None = None  # when patience is
        self._before: tuple[Work, int] | None = None  # work and generation, while others take their place
        self._asking: Child | None = None  # who is told how that went
        self._waiting: list[tuple[Child, dict[str, Any]]] = []  # who asks for what, while workers are exchanged
        self._hung_up = False  # SIGHUP has come and waits

    def start_stand_in(self) -> None:
        """Fork a process that answers while this one gets ready; it retires when the first worker serves."""
        self._fork()

    def run(self) -> int:
        """Keep workers that do `self.work`, until told to end. The exit code."""
        self._generation = 1
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self._warn_of_threads()
        self._freeze()
        last = time.monotonic()
        while True:
            self._reap()
            if self._over is None:
                self._replenish()
            elif not self._children:
                return 0
            if self._failures >= MAX_FAILURES and self._before:
                self._put_back()
            elif self._failures >= MAX_FAILURES and SERVING not in self.shared.state:
                log.error("%d workers in a row have ended before they served; so does the service", self._failures)
                self.kill()
                return 1
            hurry = self._asking or any(self.shared.state[child.slot] == STARTING for child in self._children.values())
            received = signal.sigtimedwait(SIGNALS, QUICK_LOOK_SECONDS if hurry else LOOK_SECONDS)
            now = time.monotonic()
            self._look(min(now - last, LOOK_SECONDS))
            last = now
            if received and self._told(received.si_signo):
                self.kill()
                return 0
            self._keep_time(now)

    def kill(self) -> None:
        """End all workers now, and wait for that."""
        self._send(signal.SIGKILL)
        while self._children:
            pid, _ = os.waitpid(-1, 0)
            self._bury(pid)

    def _told(self, number: int) -> bool:
        """Act on a signal. True if all is to end at once."""
        if number == signal.SIGHUP and self._terminal and not os.isatty(0):
            number = signal.SIGINT  # it was started in a terminal, which is gone
        if number == signal.SIGHUP:
            self._hung_up = True
        elif number == signal.SIGUSR2:
            self._hear()
        elif number in (signal.SIGTERM, signal.SIGINT):
            if self._drained is not None:
                log.warning("told twice: ending at once")
                return True
            drain = self._drain_seconds if number == signal.SIGTERM else 0.0
            log.info("draining", extra={"fields": {"seconds": drain}})
            self._drained = time.monotonic() + drain
            self._refuse_waiting()
            self._send(signal.SIGTERM)
        return False

    def _keep_time(self, now: float) -> None:
        if self._over is not None:
            if now > self._over:
                log.warning("%d workers had to be killed", len(self._children))
                self.kill()
        elif self._drained is not None and now >= self._drained:
            self._over = now + self._end_seconds
            shut_out(self._listener)
            self._listener.close()
            self._send(signal.SIGQUIT)

    def _hear(self) -> None:
        """What workers ask for."""
        for child in list(self._children.values()):
            try:
                said = child.channel.recv(MESSAGE_BYTES)
            except OSError:  # it has said nothing
                continue
            if not said:  # it has ended, and is not buried yet
                continue
            asked = json.loads(said)
            if self._drained is not None or child.generation < self._generation:  # it has to end first
                self._answer(child, TRY_AGAIN)
            else:
                self._waiting.append((child, asked))
        self._grant()

    def _grant(self) -> None:
        """Do what is asked for, unless workers are being exchanged: then it waits."""
        if self._before:
            return
        while self._waiting and not self._before:
            self._asking, asked = self._waiting.pop(0)
            self._renew(asked)
        if self._before:
            self._refuse_waiting()  # who asked is being replaced now

    def _refuse_waiting(self) -> None:
        for child, _ in self._waiting:
            self._answer(child, TRY_AGAIN)
        self._waiting.clear()

    def _renew(self, asked: dict[str, Any]) -> None:
        """Load what is asked for, and have other workers take the place of those that are there."""
        assert self.work
        try:
            work = self._reload(asked)
        except Exception as error:
            log.error("what was loaded stays: %s", error, exc_info=None if isinstance(error, BEEError) else error)
            self._settle(str(error) if isinstance(error, BEEError) else "loading failed; the log says why")
            return
        self._before = self.work, self._generation
        self.work = work
        self._generation += 1
        self._freeze()

    def _put_back(self) -> None:
        """The workers of the new generation don't get to serve: leave it."""
        assert self._before
        log.error("what was loaded stays: %d workers with something else have ended before they served", self._failures)
        self.work, self._generation = self._before
        self._before, self._failures, self._not_before = None, 0, 0.0
        self._tell_put_back()
        self._refuse_waiting()
        for pid, child in self._children.items():
            if child.generation > self._generation:
                child.retired = True
                os.kill(pid, signal.SIGKILL)
        self._settle("workers with it don't get to serve; the log says why")

    def _settle(self, problem: str | None) -> None:
        """Tell who has asked how it went; None for well."""
        if self._asking:
            self._answer(self._asking, problem)
        self._asking = None

    def _answer(self, child: Child, problem: str | None) -> None:
        with contextlib.suppress(OSError):  # it has gone
            child.channel.send(json.dumps({"problem": problem}).encode())

    def _replenish(self) -> None:
        """Fork what is missing; let go of those whose successors serve."""
        current = [child for child in self._children.values() if child.generation == self._generation]
        if time.monotonic() >= self._not_before:
            for _ in range(self._workers - len(current)):
                self._fork()
        serving = [child for child in current if self.shared.state[child.slot] == SERVING]
        if len(serving) == self._workers:
            self._failures = 0
        if len(serving) == self._workers or (serving and self._generation == 1):
            older = [(pid, child) for pid, child in self._children.items() if child.generation < self._generation]
            for pid, child in older:
                if not child.retired:
                    child.retired = True
                    os.kill(pid, signal.SIGUSR1)
            if not any(self.shared.state[child.slot] == SERVING for _, child in older):
                self._settle(None)  # whatever is asked from now on, new workers answer
            if not older:
                self._before = None
                self._grant()
                if self._hung_up and self._drained is None and not self._before:
                    self._hung_up = False
                    self._renew({})

    def _fork(self) -> None:
        assert self.work
        used = {child.slot for child in self._children.values()}
        slot = next(slot for slot in range(self.shared.slots) if slot not in used)
        self.shared.state[slot] = STARTING
        parent = os.getpid()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())  # in the child until it has handlers
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            for channel in (ours, *(child.channel for child in self._children.values())):
                channel.close()  # or they would outlive their parent
            self._become(parent, self.work, Place(self.shared, slot, self._listener, theirs))
        theirs.close()
        ours.setblocking(False)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        self.shared.pid[slot] = pid
        self._children[pid] = Child(slot, self._generation, ours)
        if self._drained is not None:
            os.kill(pid, signal.SIGTERM)

    def _become(self, parent: int, work: Work, place: Place) -> None:
        """The child's way from here; it never returns."""
        code = 1
        try:
            if sys.platform == "linux":
                ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            if os.getppid() == parent:  # else it went before the kernel was told
                work(place)
                code = 0
        except BaseException:  # nothing of the parent's may run in here, its clean-up least of all
            log.exception("a worker failed")
        finally:
            os._exit(code)

    def _reap(self) -> None:
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            child = self._children.get(pid)
            served = child is not None and self.shared.state[child.slot] == SERVING
            self._bury(pid)
            if child is None or child.retired or child.generation < self._generation or self._over is not None:
                continue
            code = os.waitstatus_to_exitcode(status)
            how = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            log.error("a worker has ended (%s); another takes its place", how, extra={"fields": {"worker": pid}})
            self.shared.counts[HUNG if child.killed else ENDED] += 1
            if not served:
                self._failures += 1
                self._not_before = time.monotonic() + min(MAX_DELAY_SECONDS, 0.05 * 2**self._failures)

    def _bury(self, pid: int) -> None:
        child = self._children.pop(pid, None)
        if child:
            child.channel.close()
            self.shared.clear(child.slot)

    def _look(self, seconds: float) -> None:
        """Kill who has not moved for too long; `seconds` since the last look."""
        for pid, child in self._children.items():
            beats = self.shared.beats[child.slot]
            child.still = 0.0 if beats != child.beats else child.still + seconds
            child.beats = beats
            if child.still > self._health_seconds and not child.killed:
                log.error(
                    "a worker's event loop has stood still for %g s; it is killed",
                    self._health_seconds,
                    extra={"fields": {"worker": pid}},
                )
                child.killed = True
                os.kill(pid, signal.SIGKILL)

    def _freeze(self) -> None:
        """Have the collector leave alone what is there: it would write to, and so copy, what workers share."""
        gc.unfreeze()
        gc.collect()
        gc.freeze()

    def _send(self, number: int) -> None:
        for pid in self._children:
            os.kill(pid, number)

    def _warn_of_threads(self) -> None:
        try:
            threads = len(os.listdir("/proc/self/task"))
        except OSError:
            return
        if threads > 1:
            log.warning("%d threads are alive where workers are forked; they won't be in the workers", threads)
