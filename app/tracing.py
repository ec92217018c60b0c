"""
OpenTelemetry: a span for each request, its context taken from the caller's `traceparent` (W3C), and in it a span for
each phase. Where requests left and what that saved are attributes; a text never is.

Needs the extra [otel]. Exporter, sampler and names come from the standard OTEL_* variables. Plain ASGI, outermost.
"""

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from beexformer.app.context import RequestContext
from beexformer.app.middleware import QUIET
from beexformer.app.prefix import route_path
from beexformer.model.errors import BEEError


def require() -> None:
    """Raises BEEError where the extra is not installed."""
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter
        import opentelemetry.sdk.trace.export  # noqa: F401
    except ImportError as error:
        raise BEEError(
            f"BEE_TRACING needs the extra [otel] ({error}): pip install 'beexformer[otel]', or unset it"
        ) from None


def provider() -> Any:
    """A tracer provider that sends to where OTEL_EXPORTER_OTLP_ENDPOINT says. One a process: it has a thread."""
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    provider = TracerProvider(resource=Resource.create({"service.name": "beexformer"}))  # OTEL_SERVICE_NAME wins
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return provider


class Tracing:
    """ASGI middleware. `provider` is an OpenTelemetry tracer provider."""

    def __init__(self, app: ASGIApp, *, provider: Any) -> None:
        from opentelemetry.trace import SpanKind
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        self.app, self._kind = app, SpanKind.SERVER
        self._tracer, self._propagator = provider.get_tracer("beexformer"), TraceContextTextMapPropagator()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = route_path(scope) if scope["type"] == "http" else ""
        if not path or path in QUIET or path.startswith(("/assets/", "/docs/")):
            await self.app(scope, receive, send)
            return
        carrier = {
            name.decode("latin-1"): value.decode("latin-1")
            for name, value in scope["headers"]
            if name in (b"traceparent", b"tracestate")
        }
        status = 0

        async def send_noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        with self._span(scope, carrier) as span:
            try:
                await self.app(scope, receive, send_noting)
            finally:
                self._finish(span, scope, path, status)

    @contextlib.contextmanager
    def _span(self, scope: Scope, carrier: dict[str, str]) -> Iterator[Any]:
        received = scope.get("bee.received", time.monotonic())
        span = self._tracer.start_span(
            scope["method"],
            context=self._propagator.extract(carrier),
            kind=self._kind,
            start_time=_nanoseconds(received),
        )
        try:
            yield span
        finally:
            span.end()

    def _finish(self, span: Any, scope: Scope, path: str, status: int) -> None:
        route = getattr(scope.get("route"), "path", None) or path
        span.update_name(f"{scope['method']} {route}")
        span.set_attributes({"http.request.method": scope["method"], "http.route": route})
        if status:
            span.set_attribute("http.response.status_code", status)
        if not status or status >= 500:
            from opentelemetry.trace import StatusCode

            span.set_status(StatusCode.ERROR)
        context: RequestContext | None = scope.get("state", {}).get("context")
        if not (context and span.is_recording()):
            return
        span.set_attribute("beexformer.request_id", context.request_id)
        named = ("model", "items", "exit_index", "num_blocks")
        span.set_attributes(
            {f"beexformer.{name}": value for name in named if (value := getattr(context, name)) is not None}
        )
        if context.flops_full:
            span.set_attributes({"beexformer.flops": context.flops, "beexformer.flops_full": context.flops_full})
        self._phases(span, context)

    def _phases(self, span: Any, context: RequestContext) -> None:
        """One after another from when the request was received: of a batch they took turns, and are shown as sums."""
        from opentelemetry.trace import set_span_in_context

        start = context.received
        tokenize, queue, compute = context.phases or (0.0, 0.0, 0.0)
        for name, seconds in zip(("queue", "tokenize", "compute"), (queue, tokenize, compute), strict=True):
            if seconds > 0:
                phase = self._tracer.start_span(name, context=set_span_in_context(span), start_time=_nanoseconds(start))
                start += seconds
                phase.end(_nanoseconds(start))


def _nanoseconds(monotonic: float) -> int:
    """A reading of time.monotonic() as nanoseconds since 1970, as spans have it."""
    return time.time_ns() - int(1e9 * (time.monotonic() - monotonic))
