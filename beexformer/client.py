"""
A client of the service, in two forms: `Client`, and `AsyncClient` with the same methods to await. Needs the extra
[client] (httpx2, the successor of httpx).

    from beexformer.client import Client

    with Client("http://127.0.0.1:8000", api_key="...") as client:
        print(client.classify("a warm, funny film").label)

What the service refuses for the moment (429, 502, 503, 504 of a proxy) and connections that fail are tried again, after
the seconds that `Retry-After` says or ever longer; classifying changes nothing, so that this is always safe.
"""

import asyncio
import random
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, Self, TypedDict, Unpack, cast

import httpx2

from beexformer.model.answer import Answer, Cost
from beexformer.model.errors import BEEError
from beexformer.model.options import NOTHING_ASKED, ExitOptions

AGAIN = (429, 502, 503, 504)
FIRST_WAIT = 0.1  # seconds; twice as long each time
ANSWER_FIELDS = {field.name for field in fields(Answer)}


class Asked(TypedDict, total=False):
    """What may be asked beside a text, as in a request."""

    model: str
    delta: float
    entropy_threshold: float
    min_blocks: int
    max_blocks: int
    profile: str
    candidate_labels: list[str]
    truncate: bool
    cost: bool


class ServiceError(BEEError):
    """The service refused, or couldn't be reached. `problem` is its problem+json (RFC 9457), {} where there is none;
    `status` its HTTP status, 0 where there was no answer."""

    def __init__(self, message: str, status: int = 0, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(message)
        self.status, self.problem = status, dict(problem or {})


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One text or pair of a batch, with what is asked for it."""

    text: str
    text_pair: str | None = None
    model: str | None = None
    options: ExitOptions = NOTHING_ASKED
    candidate_labels: list[str] | None = None
    truncate: bool = True
    cost: bool = False

    def body(self) -> dict[str, Any]:
        named = {
            name: getattr(self, name) for name in ("text", "text_pair", "model", "candidate_labels", "truncate", "cost")
        }
        asked = {field.name: getattr(self.options, field.name) for field in fields(ExitOptions)}
        return {name: value for name, value in {**named, **asked}.items() if value is not None}


@dataclass(frozen=True, slots=True)
class _Retries:
    """When a request is sent again: `retries` times at most, and never to wait longer than `longest` seconds."""

    retries: int
    longest: float

    def waits(self) -> Iterator[float]:
        """Seconds before each further try where the service doesn't say; jittered, so that clients spread."""
        for attempt in range(self.retries):
            yield min(self.longest, FIRST_WAIT * 2**attempt) * random.uniform(0.5, 1)

    def wait(self, ours: float, response: httpx2.Response | None) -> float | None:
        """Seconds until the next try; None where there should be none."""
        if response is None:
            return ours
        if response.status_code not in AGAIN:
            return None
        said = response.headers.get("retry-after", "")
        wait = max(ours, float(said)) if said.isdigit() else ours
        return wait if wait <= self.longest else None


class _Shared:
    """What both forms have in common: how requests are built and answers read."""

    def __init__(
        self,
        base_url: str = "http://127.0.0.1:8000",
        *,
        api_key: str | None = None,
        timeout: float = 10.0,
        retries: int = 4,
        longest_wait: float = 30.0,
        transport: Any = None,
    ) -> None:
        """`timeout` in seconds of each try, which the service is told too; `transport` for tests and proxies."""
        headers = {"User-Agent": "beexformer-client", "X-Request-Timeout-Ms": str(max(1, int(1000 * timeout)))}
        if api_key is not None:
            headers["X-API-Key"] = api_key
        self._retries = _Retries(retries, longest_wait)
        self._options: dict[str, Any] = {
            "base_url": base_url,
            "headers": headers,
            "timeout": timeout,
            "transport": transport,
        }


def _answer(result: Mapping[str, Any]) -> Answer:
    """An answer from its JSON; fields that a newer service has are left aside."""
    known = {name: value for name, value in result.items() if name in ANSWER_FIELDS}
    cost, labels = result.get("cost"), result.get("labels")
    known |= {"entropies": tuple(result["entropies"]), "labels": None if labels is None else tuple(labels)}
    return Answer(**{**known, "cost": Cost(**cost) if cost else None})


def _error(result: Mapping[str, Any]) -> ServiceError:
    return ServiceError(f"{result['title']}: {result['detail']}", result["status"], result)


def _checked(response: httpx2.Response) -> Any:
    if response.is_success:
        return response.json()
    if response.headers.get("content-type", "").startswith("application/problem+json"):
        raise _error(response.json())
    raise ServiceError(f"HTTP {response.status_code} from {response.url.host}", response.status_code)


def _items(items: Iterable[str | Item]) -> dict[str, Any]:
    return {"items": [(Item(text=item) if isinstance(item, str) else item).body() for item in items]}


def _results(result: Mapping[str, Any]) -> list[Answer | ServiceError]:
    return [_answer(one) if "label" in one else _error(one) for one in result["results"]]


class Client(_Shared):
    """Safe to share among threads."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._http = httpx2.Client(**self._options)

    def close(self) -> None:
        self._http.close()

    def classify(self, text: str, text_pair: str | None = None, **asked: Unpack[Asked]) -> Answer:
        """The answer to a text or pair; `asked` has options by name (delta, ...), model, truncate, cost.
        Raises ServiceError."""
        return _answer(self._send("POST", "/classify", _item(text, text_pair, asked).body()))

    def classify_batch(self, items: Iterable[str | Item]) -> list[Answer | ServiceError]:
        """For each item, in order, its answer or its own error. Raises ServiceError where all are refused."""
        return _results(self._send("POST", "/classify/batch", _items(items)))

    def models(self) -> list[dict[str, Any]]:
        """The loaded models, as GET /models has them."""
        result: list[dict[str, Any]] = self._send("GET", "/models")["models"]
        return result

    def _send(self, method: str, path: str, body: Any = None) -> Any:
        waits = self._retries.waits()
        while True:
            response, failed = None, None
            try:
                response = self._http.request(method, path, json=body)
            except httpx2.TransportError as error:
                failed = error
            wait = self._retries.wait(ours, response) if (ours := next(waits, None)) is not None else None
            if wait is None:
                return _outcome(response, failed)
            time.sleep(wait)


class AsyncClient(_Shared):
    """The same, on an event loop."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self.close()

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._http = httpx2.AsyncClient(**self._options)

    async def close(self) -> None:
        await self._http.aclose()

    async def classify(self, text: str, text_pair: str | None = None, **asked: Unpack[Asked]) -> Answer:
        """As Client.classify."""
        return _answer(await self._send("POST", "/classify", _item(text, text_pair, asked).body()))

    async def classify_batch(self, items: Iterable[str | Item]) -> list[Answer | ServiceError]:
        """As Client.classify_batch."""
        return _results(await self._send("POST", "/classify/batch", _items(items)))

    async def models(self) -> list[dict[str, Any]]:
        """As Client.models."""
        result: list[dict[str, Any]] = (await self._send("GET", "/models"))["models"]
        return result

    async def _send(self, method: str, path: str, body: Any = None) -> Any:
        waits = self._retries.waits()
        while True:
            response, failed = None, None
            try:
                response = await self._http.request(method, path, json=body)
            except httpx2.TransportError as error:
                failed = error
            wait = self._retries.wait(ours, response) if (ours := next(waits, None)) is not None else None
            if wait is None:
                return _outcome(response, failed)
            await asyncio.sleep(wait)


def _outcome(response: httpx2.Response | None, failed: Exception | None) -> Any:
    if response is None:
        raise ServiceError(f"the service can't be reached ({failed}); is it running, and is the address right?")
    return _checked(response)


def _item(text: str, text_pair: str | None, given: Asked) -> Item:
    asked = cast("dict[str, Any]", given)
    named = {name: asked.pop(name) for name in ("model", "truncate", "cost") if name in asked}
    return Item(text=text, text_pair=text_pair, options=ExitOptions(**asked), **named)
