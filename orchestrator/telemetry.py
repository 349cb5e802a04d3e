"""Traces: one span per step of a request, in one trace across all processes.

The context travels with the request as plain pairs, because Ray carries none. Export is set by the
standard variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_EXPORTER_OTLP_PROTOCOL, …); without an
endpoint nothing is exported and spans cost next to nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from opentelemetry import context as otel_context
from opentelemetry import propagate, trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Span, Status, StatusCode

Carrier = tuple[tuple[str, str], ...]
"""W3C trace context as (header, value) pairs."""

Attribute = str | bool | int | float | Sequence[str] | Sequence[float]

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


class Telemetry:
    """The tracer of one process. `role` names the process in the resource (gateway, router, …).

    Nothing is exported with `enabled` False, whatever the variables say.
    """

    def __init__(
        self,
        service_name: str,
        role: str,
        *,
        enabled: bool = True,
        exporter: SpanExporter | None = None,
    ) -> None:
        chosen = (exporter or _exporter()) if enabled else None
        self._provider: TracerProvider | None = None
        if chosen is not None:
            resource = Resource.create(
                {
                    "service.name": os.environ.get("OTEL_SERVICE_NAME", service_name),
                    "service.instance.id": f"{role}-{os.getpid()}",
                    "collegium.role": role,
                }
            )
            self._provider = TracerProvider(resource=resource)
            self._provider.add_span_processor(BatchSpanProcessor(chosen))
        provider: trace.TracerProvider = self._provider or trace.NoOpTracerProvider()
        self._tracer = provider.get_tracer("collegium")

    @contextmanager
    def span(
        self, name: str, parent: Carrier | None = None, **attributes: Attribute
    ) -> Iterator[Span]:
        """A span below `parent`, or below the one that is open here.

        An exception marks it as failed and goes on. Do not hold it open across a `yield` of an
        asynchronous generator; use `start` there.
        """
        context = propagate.extract(dict(parent)) if parent is not None else None
        with self._tracer.start_as_current_span(name, context=context) as span:
            span.set_attributes(_dotted(attributes))
            yield span

    def start(self, name: str, parent: Carrier, **attributes: Attribute) -> Span:
        """A span that the caller ends, for streams."""
        span = self._tracer.start_span(name, context=propagate.extract(dict(parent)))
        span.set_attributes(_dotted(attributes))
        return span

    def flush(self) -> None:
        """Send what is waiting."""
        if self._provider is not None:
            self._provider.force_flush(5_000)

    def shutdown(self) -> None:
        """Send what is waiting and stop."""
        if self._provider is not None:
            self._provider.shutdown()


def carrier(span: Span | None = None) -> Carrier:
    """The context to hand to another process: that of `span`, or of the span that is open here."""
    context = trace.set_span_in_context(span) if span else otel_context.get_current()
    headers: dict[str, str] = {}
    propagate.inject(headers, context=context)
    return tuple(headers.items())


def incoming(headers: Mapping[str, str]) -> Carrier:
    """The context that an HTTP caller sent, if any."""
    return tuple((k, v) for k, v in headers.items() if k in ("traceparent", "tracestate"))


@contextmanager
def failing(span: Span) -> Iterator[None]:
    """Mark a span as failed by what the block raises. May be held open across a `yield`."""
    try:
        yield
    except Exception as error:
        span.record_exception(error)
        span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
        raise


def otel_environment() -> dict[str, str]:
    """The OTEL_* variables of this process, for the processes that it starts."""
    return {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}


def _dotted(attributes: Mapping[str, Attribute]) -> dict[str, Attribute]:
    # Keyword arguments cannot hold dots: `gen_ai__request__model` stands for gen_ai.request.model.
    return {name.replace("__", "."): value for name, value in attributes.items()}


def _exporter() -> SpanExporter | None:
    wanted = any(os.environ.get(name) for name in _ENDPOINTS)
    disabled = os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true"
    if not wanted or disabled or os.environ.get("OTEL_TRACES_EXPORTER") == "none":
        return None
    protocol = next((os.environ[n] for n in _PROTOCOLS if os.environ.get(n)), "http/protobuf")
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (
            OTLPSpanExporter as GrpcExporter,
        )

        return GrpcExporter()
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter

    return OTLPSpanExporter()
