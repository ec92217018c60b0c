"""A real server whose workers die as soon as they are forked; with "later", only those after a reload."""

import sys
from pathlib import Path

from beexformer.app import main, serve
from beexformer.app.settings import Settings
from beexformer.app.worker import Worker

HEALTHY = {1, 2} if "later" in sys.argv else set()  # slots of the first workers


class Dying(Worker):
    def run(self) -> None:
        if self.place.slot not in HEALTHY:
            raise SystemExit(3)
        super().run()


if __name__ == "__main__":
    main.Worker = Dying  # type: ignore[attr-defined]
    serve.serve(Settings(checkpoints=(Path(sys.argv[1]),), port=0, workers=2, drain_seconds=0))
