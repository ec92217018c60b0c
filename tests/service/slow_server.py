"""A real server whose engine takes its time, so that a test can send SIGTERM while texts are being answered."""

import sys
import time
from pathlib import Path
from typing import Any

from beexformer.app.main import serve
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
        checkpoints=(Path(sys.argv[1]),),
        port=0,
        workers=1,
        threads=1,
        max_batch_rows=1,
        request_timeout_ms=60_000,
        drain_seconds=1,
    )
    serve(settings, Slow.load)
