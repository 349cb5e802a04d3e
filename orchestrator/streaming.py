"""Streams: answers that are read while they are written, for threads and for asyncio.

The twins only fetch bytes; what the bytes mean is read by `orchestrator.events`, for both alike.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Self

import httpx

from orchestrator.answer import Answer
from orchestrator.errors import CollegiumError, ConnectionFailed, TimedOut, UnreadableResponse
from orchestrator.events import AnswerReader, TextEvent


@contextmanager
def translated() -> Iterator[None]:
    """Turn what httpx raises while sending or receiving into errors of `orchestrator.errors`."""
    try:
        yield
    except httpx.ConnectTimeout as exc:
        raise ConnectionFailed(f"No connection to {_address(exc)} in time.") from exc
    except httpx.TimeoutException as exc:
        raise TimedOut(f"{_address(exc)} did not answer in time; raise `timeout`.") from exc
    except httpx.ConnectError as exc:
        raise ConnectionFailed(f"No connection to {_address(exc)} ({exc}). Is it up?") from exc
    except httpx.TransportError as exc:
        raise ConnectionFailed(f"The connection to {_address(exc)} broke: {exc}") from exc
    except httpx.RequestError as exc:
        raise UnreadableResponse(f"{_address(exc)} sent an unreadable body: {exc}") from exc


def _address(exc: httpx.RequestError) -> str:
    return f"{exc.request.url.scheme}://{exc.request.url.netloc.decode()}"


class Stream:
    """An answer while it is written: iterate over it for `TextEvent`s.

    Nothing is sent before the first event is asked for (or the `with` block entered). Closing it
    cancels the request at the server.
    """

    def __init__(self, send: Callable[[], httpx.Response]) -> None:
        self._send = send
        self._reader = AnswerReader()
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())
        self._closed = False

    @property
    def text(self) -> str:
        """The text handed out so far."""
        return self._reader.text

    def answer(self) -> Answer:
        """Read to the end and return the whole answer, with citations, routing and usage."""
        for _ in self:
            continue
        return self._reader.answer()

    def close(self) -> None:
        """End the request; iterating further yields nothing."""
        self._closed = True
        if self._response is not None:
            self._response.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> TextEvent:
        try:
            while not self._closed:
                if (event := self._reader.take()) is not None:
                    return event
                self._advance()
        except CollegiumError:
            self.close()
            raise
        raise StopIteration

    def __enter__(self) -> Self:
        self._open()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _open(self) -> None:
        if self._response is None:
            self._response = self._send()
            self._chunks = self._response.iter_bytes()

    def _advance(self) -> None:
        if self._reader.done:
            self.close()
            return
        self._open()
        with translated():
            data = next(self._chunks, b"")
        self._reader.feed(data)


class AsyncStream:
    """See `Stream`; iterate with `async for`, close by leaving `async with`."""

    def __init__(self, send: Callable[[], Awaitable[httpx.Response]]) -> None:
        self._send = send
        self._reader = AnswerReader()
        self._response: httpx.Response | None = None
        self._chunks: AsyncIterator[bytes] | None = None
        self._closed = False

    @property
    def text(self) -> str:
        """The text handed out so far."""
        return self._reader.text

    async def answer(self) -> Answer:
        """See `Stream.answer`."""
        async for _ in self:
            continue
        return self._reader.answer()

    async def aclose(self) -> None:
        """See `Stream.close`."""
        self._closed = True
        if self._response is not None:
            await self._response.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TextEvent:
        try:
            while not self._closed:
                if (event := self._reader.take()) is not None:
                    return event
                await self._advance()
        except CollegiumError:
            await self.aclose()
            raise
        raise StopAsyncIteration

    async def __aenter__(self) -> Self:
        await self._open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.aclose()

    async def _open(self) -> AsyncIterator[bytes]:
        if self._chunks is None:
            self._response = await self._send()
            self._chunks = self._response.aiter_bytes()
        return self._chunks

    async def _advance(self) -> None:
        if self._reader.done:
            await self.aclose()
            return
        chunks = await self._open()
        with translated():
            data = await anext(chunks, b"")
        self._reader.feed(data)
