"""A real server whose engine gets ready once SIGUSR2 comes."""

import signal
import sys
import threading
from pathlib import Path

from beexformer.app.serve import serve
from beexformer.app.settings import Settings
from beexformer.model.engine import Engine

GO_ON = threading.Event()


class Starting(Engine):
    def warm(self) -> None:
        while not GO_ON.wait(0.05):
            pass
        super().warm()


if __name__ == "__main__":
    signal.signal(signal.SIGUSR2, lambda number, frame: GO_ON.set())
    serve(Settings(checkpoints=(Path(sys.argv[1]),), port=0, workers=2, drain_seconds=0), Starting.load)
