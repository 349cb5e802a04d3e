"""A remote expert: any OpenAI-compatible upstream, with the same face as a local one."""

from __future__ import annotations

import json
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

import httpx2
import openai
from openai import AsyncOpenAI

from experts.generation import (
    Chunk,
    ExpertError,
    FinishReason,
    Generation,
    Health,
    Sampling,
    TokenLogprob,
    Usage,
)
from experts.marks import without_marks


@dataclass(frozen=True)
class RemoteSpec:
    """Where the upstream is. The key lies in the environment variable `api_key_env`.

    `timeout` is the longest silence of the upstream in seconds, `connect_timeout` that of the
    connection; `retries` happen with back-off and only before the first byte.
    """

    name: str
    base_url: str
    model: str
    api_key_env: str | None = None
    timeout: float = 60.0
    connect_timeout: float = 5.0
    retries: int = 2


class RemoteExpert:
    """One upstream model.

    Raises:
        ExpertError: the environment variable of the key is not set.
    """

    def __init__(self, spec: RemoteSpec) -> None:
        self._spec = spec
        self._open = 0
        self._client = AsyncOpenAI(
            base_url=spec.base_url,
            api_key=_key(spec),
            timeout=openai.Timeout(spec.timeout, connect=spec.connect_timeout),
            max_retries=spec.retries,
        )

    async def generate(self, request: Generation) -> AsyncGenerator[Chunk, None]:
        """Stream the upstream's answer. Closing the iterator closes the upstream connection.

        Raises:
            ExpertError: the upstream refused, failed or fell silent; the message names it.
        """
        self._open += 1
        try:
            stream = await self._client.chat.completions.create(**self._body(request))
            async with _ended(stream), aclosing(self._chunks(stream)) as chunks:
                async for chunk in chunks:
                    yield chunk
        except openai.APIStatusError as error:
            raise ExpertError(
                f"{self._spec.name}: the upstream answered {error.status_code}: {error.message}"
            ) from error
        except openai.OpenAIError as error:
            raise ExpertError(f"{self._spec.name}: {error}") from error
        except json.JSONDecodeError as error:
            raise ExpertError(f"{self._spec.name}: the upstream sent no JSON: {error}") from error
        finally:
            self._open -= 1

    async def health(self) -> Health:
        """How many requests are open; the upstream itself is not asked."""
        return Health((self._spec.name,), "remote", self._open, 0, os.getpid())

    def check_health(self) -> None:
        """A remote expert's replica has nothing of its own that can break."""

    def _body(self, request: Generation) -> dict[str, Any]:
        sampling = request.sampling
        body: dict[str, Any] = {
            "model": self._spec.model,
            "messages": [
                {"role": role, "content": without_marks(text)} for role, text in request.messages
            ],
            "stream": True,
            "stream_options": {"include_usage": True},
            "max_tokens": sampling.max_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
        }
        return body | _optional(sampling)

    async def _chunks(self, stream: Any) -> AsyncGenerator[Chunk, None]:  # noqa: ANN401
        reason: FinishReason | None = None
        usage, pieces = None, 0
        while (event := await anext(stream, None)) is not None:
            if event.usage is not None:
                usage = Usage(event.usage.prompt_tokens, event.usage.completion_tokens)
            for choice in event.choices:
                if choice.finish_reason is not None:
                    cut = choice.finish_reason == FinishReason.LENGTH
                    reason = FinishReason.LENGTH if cut else FinishReason.STOP
                logprobs = _logprobs(choice)
                text = choice.delta.content or ""
                pieces += bool(text)
                if text or logprobs:
                    yield Chunk(text, logprobs)
        if reason is None:
            raise ExpertError(f"{self._spec.name}: the upstream's answer broke off")
        # Upstreams that count nothing leave the number of pieces as the nearest known figure.
        yield Chunk("", finish_reason=reason, usage=usage or Usage(0, pieces))


@asynccontextmanager
async def _ended(stream: Any) -> AsyncIterator[None]:  # noqa: ANN401
    try:
        yield
    finally:
        await stream.close()
        # The SDK reads through a dozen nested generators and closes none of them. What is not run
        # to its end here, the event loop closes in other tasks, some of them twice at once.
        with suppress(openai.OpenAIError, httpx2.HTTPError, json.JSONDecodeError):
            while await anext(stream, None) is not None:
                continue


def _optional(sampling: Sampling) -> dict[str, Any]:
    # Upstreams differ in what they know: only what the caller asked for is passed on.
    body: dict[str, Any] = {}
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    if sampling.stop:
        body["stop"] = list(sampling.stop)
    if sampling.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": sampling.logprobs}
    return body


def _logprobs(choice: Any) -> tuple[TokenLogprob, ...]:  # noqa: ANN401
    content = choice.logprobs.content if choice.logprobs else None
    return tuple(
        TokenLogprob(t.token, t.logprob, tuple((o.token, o.logprob) for o in t.top_logprobs or ()))
        for t in content or ()
    )


def _key(spec: RemoteSpec) -> str:
    if spec.api_key_env is None:
        key = "none"
    elif not (key := os.environ.get(spec.api_key_env, "")):
        raise ExpertError(
            f"{spec.name}: the environment variable {spec.api_key_env} is not set; it must hold "
            f"the key for {spec.base_url}"
        )
    return key
