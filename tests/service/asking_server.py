"""A real server that does what SIGHUP does when it is asked to, and says how that went."""

import os
import sys
from pathlib import Path

from beexformer.app import main, serve
from beexformer.app.settings import Settings
from beexformer.app.worker import Worker


class Asking(Worker):
    def run(self) -> None:
        async def ask() -> dict[str, str | None]:
            return {"pid": str(os.getpid()), "problem": await self.ask({})}

        self.app.add_api_route("/ask", ask, methods=["POST"])
        super().run()


if __name__ == "__main__":
    main.Worker = Asking  # type: ignore[attr-defined]
    serve.serve(Settings(checkpoints=(Path(sys.argv[1]),), port=0, workers=2, drain_seconds=1))
