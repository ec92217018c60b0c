"""A real server whose workers die as soon as they are forked."""

import sys
from pathlib import Path

from beexformer.app import main
from beexformer.app.settings import Settings
from beexformer.app.worker import Worker

if __name__ == "__main__":

    def die(worker: Worker) -> None:
        if worker.app.state.service.registry.state == "ready":
            raise SystemExit(3)

    Worker.run = die  # type: ignore[method-assign]
    main.serve(Settings(checkpoints=(Path(sys.argv[1]),), port=0, workers=2, drain_seconds=0))
