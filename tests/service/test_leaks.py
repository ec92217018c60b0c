"""What a request or a connection leaves behind: nothing. Objects are counted, because memory also shows what allocators
keep."""

import asyncio
import gc
import itertools
import json
from collections import Counter

import pytest
import uvicorn
from running import GOLDEN
from traffic import request, response

from beexformer.app.admission import Admission
from beexformer.app.connections import Connections, Limits
from beexformer.app.direct import DirectWay
from beexformer.app.main import create_app
from beexformer.app.protocol import Protocol
from beexformer.app.settings import Settings

TEXTS = ["a warm film", "the worst journey " * 30, "", "😀", "moving " * 600]
FEW, MANY = 20, 100
SOON = b"X-Request-Timeout-Ms: 1\r\n"


async def visit(port: int, number: int) -> None:
    """A connection and all that may happen on it, with texts that nobody has sent before."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for text in TEXTS:
        body = json.dumps({"text": text and f"{text} {number}"}).encode()
        writer.write(request(body, extra=SOON if text == TEXTS[1] else b""))
        await response(reader)
    whole = request(json.dumps({"items": [{"text": text} for text in TEXTS]}).encode()).replace(
        b"/classify", b"/classify/batch"
    )
    for piece in (whole[:150], whole[150:]):
        writer.write(piece)
        await asyncio.sleep(0)
    await response(reader)
    if number % 3 == 0:
        writer.write(request()[:-5])  # and it leaves in the middle of a body,
    elif number % 3 == 1:
        writer.write(request(json.dumps({"text": TEXTS[-1]}).encode()))  # without its answer,
    else:
        writer.write(b"nonsense\r\n\r\n")  # or after a refusal
        await response(reader)
    await writer.drain()
    writer.close()
    await writer.wait_closed()


async def counted(settings: Settings) -> list[Counter[str]]:
    """Objects by kind after a few visits, after many more, and after as many again."""
    app = create_app(settings, warm=True)
    service, loop = app.state.service, asyncio.get_running_loop()
    direct = DirectWay(service, Admission(max_body_bytes=settings.max_body_bytes)).targets()
    connections = Connections(Limits.of(settings), direct=direct)
    config = uvicorn.Config(app, http=Protocol, ws="none", lifespan="off", log_config=None, access_log=False)
    config.load()
    result: list[Counter[str]] = []
    numbers = itertools.count()
    gc.collect()
    gc.disable()
    async with app.router.lifespan_context(app):
        server = await loop.create_server(lambda: Protocol(config, connections, {}, loop), "127.0.0.1", 0)
        port: int = server.sockets[0].getsockname()[1]
        for visits in (FEW, MANY, MANY):
            for _ in range(visits):
                await visit(port, next(numbers))
            while connections.connections or connections.tasks or service.scheduler.waiting:
                await asyncio.sleep(0.01)
            protocols = sum(type(each) is Protocol for each in gc.get_objects())
            assert protocols < MANY / 10, "a connection that ended waits for garbage to be collected"
            result.append(objects())
        server.close()
        await server.wait_closed()
    return result


def objects() -> Counter[str]:
    gc.collect()
    return Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.get_objects())


@pytest.mark.slow
def test_nothing_is_left_of_requests_and_connections() -> None:
    try:
        few, many, twice = asyncio.run(counted(Settings(checkpoints=(GOLDEN,))))
    finally:
        gc.enable()
    # what visits leave they leave again; what something else of this process imports meanwhile comes once
    more = {kind: min(many[kind] - few[kind], n - many[kind]) for kind, n in twice.items()}
    assert not (left := {kind: n for kind, n in more.items() if n >= MANY}), f"{MANY} visits have left {left}"
