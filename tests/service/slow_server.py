"""A real server whose engine takes its time, so that a test can send SIGTERM while texts are being answered."""

import math
import sys
import time
from pathlib import Path
from typing import Any

from beexformer.app.serve import serve
from beexformer.app.settings import Settings
from beexformer.model.engine import Engine
from beexformer.model.forward import Forward


class SlowForward(Forward):
    turns = 100

    def advance(self, milliseconds: float = math.inf) -> bool:
        time.sleep(0.005)
        self.turns -= 1
        return super().advance(milliseconds) if self.turns <= 0 else False


class Slow(Engine):
    def begin(self, row: Any) -> Forward:
        return SlowForward(self, row)


if __name__ == "__main__":
    settings = Settings(
        checkpoints=(Path(sys.argv[1]),),
        port=0,
        workers=1,
        request_timeout_ms=60_000,
        drain_seconds=1,
    )
    serve(settings, Slow.load)
