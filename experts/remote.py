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
    Generation,
    Health,
    Sampling,
)
from experts.marks import without_marks
from experts.upstream import UpstreamAnswer

_LONGEST = 300


@dataclass(frozen=True)
class RemoteSpec:
    """Where the upstream is. The key lies in the environment variable `api_key_env`.

    `timeout` is the longest silence of the upstream in seconds, `connect_timeout` that of the
    connection; `retries` happen with back-off and only before the first byte. `token_limit` is the
    field for the most tokens, `sampling` whether the upstream takes `temperature` and `top_p`.
    """

    name: str
    base_url: str
    model: str
    api_key_env: str | None = None
    timeout: float = 60.0
    connect_timeout: float = 5.0
    retries: int = 2
    token_limit: str = "max_tokens"
    sampling: bool = True


class RemoteExpert:
    """One upstream model.

    Raises:
        ExpertError: the environment variable of the key is not set, or holds no key.
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
        # The SDK takes these from OPENAI_* variables; they are not for every upstream to see.
        self._client.organization = self._client.project = None
        self._client._custom_headers = {}

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
            said = f"the upstream answered {error.status_code}: {_brief(error.message)}"
            raise ExpertError(f"{self._spec.name}: {said}") from error
        except openai.OpenAIError as error:
            raise ExpertError(f"{self._spec.name}: {_brief(str(error))}") from error
        except json.JSONDecodeError as error:
            raise ExpertError(f"{self._spec.name}: the upstream sent no JSON: {error}") from error
        except (AttributeError, TypeError, ValueError) as error:
            # The SDK builds its events of whatever was sent.
            said = f"the upstream sent what is no event of a chat: {_brief(str(error))}"
            raise ExpertError(f"{self._spec.name}: {said}") from error
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
            self._spec.token_limit: sampling.max_tokens,
        }
        if self._spec.sampling:
            body |= {"temperature": sampling.temperature, "top_p": sampling.top_p}
        return body | _optional(sampling)

    async def _chunks(self, stream: Any) -> AsyncGenerator[Chunk, None]:  # noqa: ANN401
        answer = UpstreamAnswer()
        while (event := await anext(stream, None)) is not None:
            for chunk in answer.read(event):
                yield chunk
        if answer.reason is None:
            raise ExpertError(f"{self._spec.name}: the upstream's answer broke off")
        for chunk in answer.end():
            yield chunk


@asynccontextmanager
async def _ended(stream: Any) -> AsyncIterator[None]:  # noqa: ANN401
    try:
        yield
    finally:
        await stream.close()
        # The SDK reads through a dozen nested generators and closes none of them. What is not run
        # to its end here, the event loop closes in other tasks, some of them twice at once.
        with suppress(openai.OpenAIError, httpx2.HTTPError, ValueError, TypeError):
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


def _brief(message: str) -> str:
    # It goes to callers and logs, and an upstream may say anything, at any length.
    words = " ".join(message.split())
    return words if len(words) <= _LONGEST else f"{words[:_LONGEST]}…"


def _key(spec: RemoteSpec) -> str:
    if spec.api_key_env is None:
        return "none"
    # Secrets made from files end with a line feed.
    key = os.environ.get(spec.api_key_env, "").strip()
    if not key:
        raise ExpertError(
            f"{spec.name}: the environment variable {spec.api_key_env} is not set; it must hold "
            f"the key for {spec.base_url}"
        )
    if not all("!" <= character <= "~" for character in key):
        # Told here: a refusal by the HTTP client would hold the key itself.
        raise ExpertError(
            f"{spec.name}: the key in {spec.api_key_env} holds characters that no HTTP header may"
        )
    return key
