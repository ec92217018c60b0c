"""
Log lines: one JSON object a line on stderr, for the server's own lines and for one line a request. Never a text.

Lines of requests are put together by hand, some at a time: logging one the usual way costs a request a twelfth of its
time, and what is done for many in a row costs a third of what it costs between two sentences, which clear the caches.
"""

import asyncio
import atexit
import json
import logging
import os
import time
from typing import Any, NamedTuple

WRITTEN_AFTER = 0.1  # seconds that the line of a request may lie here
AT_ONCE = 256  # lines; as many are written without waiting


class JSONLines(logging.Formatter):
    """time, level, logger and message, then what `extra={"fields": {...}}` adds, then a traceback if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        if hasattr(record, "lines"):
            return "\n".join(record.lines)
        line: dict[str, Any] = {
            "time": f"{_second(int(record.created))}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


class _Request(NamedTuple):
    """One line to come; `time` is of the system's clock."""

    level: int
    time: float
    request_id: str
    method: str | None
    path: str
    status: int
    seconds: float
    model: str | None
    exit_index: int | None
    items: int | None


class AccessLines:
    """Lines of requests on their way to the logger `name`, each as JSONLines would write it. Nothing is lost at an exit
    that Python knows of."""

    def __init__(self, name: str) -> None:
        self._logger = logging.getLogger(name)
        self._requests: list[_Request] = []
        self._due = 0.0
        atexit.register(self.write)

    def add(
        self,
        level: int,
        request_id: str,
        method: str | None,
        path: str,
        status: int,
        seconds: float,
        model: str | None = None,
        exit_index: int | None = None,
        items: int | None = None,
    ) -> None:
        """One request was answered. Its id, method and path are ASCII without quotes; a model's name is any text."""
        if not self._logger.isEnabledFor(level):
            return
        now = time.time()
        if not self._requests or now > self._due:
            self._due = now + 2 * WRITTEN_AFTER  # past that, the loop that should have written has ended
            asyncio.get_running_loop().call_later(WRITTEN_AFTER, self.write)
        self._requests.append(_Request(level, now, request_id, method, path, status, seconds, model, exit_index, items))
        if len(self._requests) >= AT_ONCE:
            self.write()

    def write(self) -> None:
        """What has come since the last time."""
        if self._requests:
            requests, self._requests = self._requests, []
            lines = [self._line(request) for request in requests]
            self._logger.log(max(logging.INFO, self._logger.getEffectiveLevel()), "requests", extra={"lines": lines})

    def _line(self, request: _Request) -> str:
        level, now, request_id, method, path, status, seconds, model, exit_index, items = request
        more = f', "model": {json.dumps(model)}, "exit_index": {exit_index}' if model else ""
        more += f', "items": {items}' if items is not None else ""
        asked = f'"method": "{method}", ' if method else ""
        return (
            f'{{"time": "{_second(int(now))}.{int(now % 1 * 1000):03d}Z", "level": "{_LEVELS[level]}", '
            f'"logger": "{self._logger.name}", "message": "request", "pid": {os.getpid()}, '
            f'"request_id": "{request_id}", {asked}"path": "{path}", "status": {status}, '
            f'"ms": {seconds * 1000:.3f}{more}}}'
        )


access = AccessLines("bee.access")
_LEVELS = {logging.DEBUG: "debug", logging.INFO: "info"}
_seconds: dict[int, str] = {}


def _second(seconds: int) -> str:
    """In UTC, without its end."""
    if seconds not in _seconds:
        _seconds.clear()
        _seconds[seconds] = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    return _seconds[seconds]


def config(level: str) -> dict[str, Any]:
    """For logging.config.dictConfig, which uvicorn calls in each of its processes."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {"json": {"()": "beexformer.app.logs.JSONLines"}},
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": "json", "stream": "ext://sys.stderr"}},
        "root": {"handlers": ["stderr"], "level": level.upper()},
        "loggers": {"uvicorn": {"level": level.upper()}},
    }
