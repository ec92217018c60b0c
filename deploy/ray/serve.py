"""
The service as an ingress of Ray Serve, for those who run Ray already. It costs some 1.5 ms of CPU a request more than
`beexformer serve`, which is what to run otherwise (docs/scaling.md). Needs the extra [ray] on every node.

    serve run --app-dir deploy/ray serve:app            from the folder of the repository; BEE_* are the settings

- A replica is one process with one engine. It takes requests once it is ready, and not before: create_app(warm=True).
- Settings, keys above all, come from the environment of the nodes (in Kubernetes, from a Secret). Ray writes
  `runtime_env` to its logs and shows it in its dashboard, so keys in it are refused.
- Each replica shows its own metrics, and /readyz, on a port of its own: the first free one of PORTS, on every
  interface. Through Ray's proxy a scrape would meet one replica and then another, whose counters differ.
"""

import asyncio
import socket
import sys

import ray
import uvicorn
from fastapi import FastAPI
from ray import cloudpickle, serve

from beexformer.app.main import create_app
from beexformer.model.errors import BEEError

cloudpickle.register_pickle_by_value(sys.modules[__name__])  # nodes need not have this file
PORTS = range(9464, 9564)
SECRET = ("BEE_API_KEYS", "BEE_ADMIN_KEYS")


def refuse_keys_in_runtime_env() -> None:
    """Raise BEEError where keys stand in Ray's logs."""
    stated = ray.get_runtime_context().runtime_env.get("env_vars") or {}
    for name in SECRET:
        if name in stated:
            raise BEEError(
                f"{name} is in runtime_env, which Ray writes to its logs, so take it for known and make another; keys "
                "belong into the nodes' environment"
            )


def free_port() -> socket.socket:
    """A listening socket at the first free one of PORTS. Raises BEEError."""
    for port in PORTS:
        opened = socket.socket()
        try:
            opened.bind(("0.0.0.0", port))
        except OSError:
            opened.close()
            continue
        opened.listen()
        return opened
    raise BEEError(f"no port from {PORTS[0]} to {PORTS[-1]} is free for the metrics of this replica")


@serve.deployment(
    ray_actor_options={"num_cpus": 1},
    max_ongoing_requests=100,  # a process refuses by itself what would wait too long (BEE_MAX_WAIT_MS)
    health_check_period_s=5,
)
@serve.ingress()
class BEExformer:
    """A replica."""

    async def __init__(self) -> None:  # type: ignore[misc]  # Ray awaits it
        refuse_keys_in_runtime_env()
        self._service_app = create_app(warm=True)
        config = uvicorn.Config(self._service_app, lifespan="off", log_config=None, access_log=False)
        self._own = uvicorn.Server(config)
        self._serving = asyncio.create_task(self._own.serve(sockets=[free_port()]))

    def __serve_build_asgi_app__(self) -> FastAPI:
        return self._service_app

    def check_health(self) -> None:
        if self._service_app.state.service.registry.state != "ready":
            raise RuntimeError("an engine does not answer")


app = BEExformer.bind()  # type: ignore[attr-defined]  # what the decorators make of the class has it
