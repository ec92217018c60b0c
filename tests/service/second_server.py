"""A real server in which every text but the first waits, on the event loop, for a file to be there."""

import math
import sys
import time
from pathlib import Path
from typing import Any

from beexformer.app.serve import serve
from beexformer.app.settings import Settings
from beexformer.model.engine import Engine
from beexformer.model.forward import Forward

FLAG = Path(sys.argv[2])


class WaitingForward(Forward):
    begun = 0

    def advance(self, milliseconds: float = math.inf) -> bool:
        WaitingForward.begun += 1
        while WaitingForward.begun > 1 and not FLAG.exists():
            time.sleep(0.005)
        return super().advance(milliseconds)


class Waiting(Engine):
    def begin(self, row: Any) -> Forward:
        return WaitingForward(self, row)


if __name__ == "__main__":
    serve(
        Settings(checkpoints=(Path(sys.argv[1]),), port=0, workers=1, drain_seconds=0, health_seconds=3600),
        Waiting.load,
    )
