"""A real server whose engine takes its time, one row a batch, so that a test can send SIGTERM while texts wait."""

import sys
import time
from pathlib import Path
from typing import Any

import uvicorn

from beexformer.app import logs
from beexformer.app.main import create_app
from beexformer.app.settings import Settings
from beexformer.model.engine import Engine


class Slow(Engine):
    def predict(self, *args: Any) -> Any:
        time.sleep(0.5)
        return super().predict(*args)

    def calibrate(self) -> None:
        """Not at this pace: it would take a minute."""


if __name__ == "__main__":
    settings = Settings(
        checkpoints=(Path(sys.argv[1]),), threads=1, max_batch_rows=1, request_timeout_ms=60_000, shutdown_seconds=60
    )
    app = create_app(settings, Slow.load)
    uvicorn.run(app, port=0, log_config=logs.config("info"), access_log=False, timeout_graceful_shutdown=60)
