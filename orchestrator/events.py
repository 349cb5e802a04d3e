"""The events of a streamed answer, read without doing any input or output.

Bytes become events (`EventParser`), events become text and in the end an `Answer` (`AnswerReader`).
"""

import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from pydantic import ValidationError

from orchestrator.answer import Answer
from orchestrator.errors import CollegiumError, ConnectionFailed, UnreadableResponse, from_detail
from orchestrator.validation import sentence, shown
from orchestrator.wire import (
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChoiceLogprobs,
    ErrorBody,
    ResponseMessage,
)

END = "[DONE]"

T = TypeVar("T")


@dataclass(frozen=True)
class TextEvent:
    """Some more text of an answer, never empty."""

    delta: str
    logprobs: ChoiceLogprobs | None = None


class EventParser:
    """Data of server-sent events out of bytes that may be cut anywhere.

    Follows https://html.spec.whatwg.org/multipage/server-sent-events.html (section 9.2.6); names,
    ids and retry times of events are of no use here and are dropped.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._data: list[str] = []
        self._at_start = True
        self._after_return = False

    def feed(self, data: bytes) -> list[str]:
        """Take more bytes; return the data of every event that they complete."""
        events = []
        for line in self._lines(data):
            if line:
                self._take_field(line)
            elif self._data:
                events.append("\n".join(self._data))
                self._data = []
        return events

    def _lines(self, data: bytes) -> list[bytes]:
        if not data:
            return []
        if self._after_return:
            # A line that ended in a carriage return was handed on without waiting for its newline.
            data = data.removeprefix(b"\n")
        block = self._rest + data
        *lines, self._rest = re.split(rb"\r\n|\r|\n", block)
        self._after_return = block.endswith(b"\r")
        if lines and self._at_start:
            self._at_start = False
            lines[0] = lines[0].removeprefix(b"\xef\xbb\xbf")
        return lines

    def _take_field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" ").decode("utf-8", "replace"))


class AnswerReader:
    """Reads a streamed answer: bytes in, text events out, the whole answer at the end."""

    def __init__(self) -> None:
        self._parser = EventParser()
        self._waiting: deque[TextEvent | CollegiumError] = deque()
        self._chunks: list[ChatCompletionChunk] = []
        self.done = False
        self.text = ""

    def feed(self, data: bytes) -> None:
        """Take more bytes; none at all means that the connection is at its end."""
        if not data:
            self._waiting.append(ConnectionFailed(f"The stream broke off before its {END}."))
        for event in self._parser.feed(data):
            if not self.done:
                self._read(event)

    def take(self) -> TextEvent | None:
        """Hand out the next text, None if there is none yet; raise the error where one stands."""
        if not self._waiting:
            return None
        item = self._waiting.popleft()
        if isinstance(item, CollegiumError):
            raise item
        self.text += item.delta
        return item

    def answer(self) -> Answer:
        """Add the chunks up to what the server would have answered without streaming."""
        if not (self.done and self._chunks):
            raise UnreadableResponse("The stream ended early: there is no whole answer.")
        choices = [choice for chunk in self._chunks for choice in chunk.choices]
        notes = [note for choice in choices for note in choice.delta.annotations or []]
        tokens = [t for c in choices if c.logprobs for t in c.logprobs.content or []]
        first = self._chunks[0]
        whole = Choice(
            message=ResponseMessage(
                content="".join(choice.delta.content or "" for choice in choices),
                annotations=notes,
            ),
            logprobs=ChoiceLogprobs(content=tokens) if tokens else None,
            finish_reason=_last(choice.finish_reason for choice in choices),
        )
        return Answer(
            ChatCompletion(
                id=first.id,
                created=first.created,
                model=first.model,
                choices=[whole],
                usage=_last(chunk.usage for chunk in self._chunks),
                system_fingerprint=first.system_fingerprint,
                x_routing=_last(chunk.x_routing for chunk in self._chunks),
            )
        )

    def _read(self, event: str) -> None:
        if event == END:
            self.done = True
            return
        try:
            chunk = _chunk(event)
        except CollegiumError as error:
            self._waiting.append(error)
            return
        self._chunks.append(chunk)
        for choice in chunk.choices:
            if choice.delta.content:
                self._waiting.append(TextEvent(choice.delta.content, choice.logprobs))


def _chunk(event: str) -> ChatCompletionChunk:
    try:
        return ChatCompletionChunk.model_validate_json(event)
    except ValidationError as exc:
        raise _event_error(event, exc) from exc


def _event_error(event: str, problem: ValidationError) -> CollegiumError:
    try:
        return from_detail(ErrorBody.model_validate_json(event).error)
    except ValidationError:
        why = sentence(problem.errors()[0])
        return UnreadableResponse(f"An event of the stream is no chunk. {why} ({shown(event)})")


def _last(values: Iterable[T | None]) -> T | None:
    return next((value for value in reversed(list(values)) if value is not None), None)
