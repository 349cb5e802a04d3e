"""What an upstream streams, as chunks: its events are whatever it sent, nobody checked them."""

from __future__ import annotations

from typing import Any

from experts.generation import Chunk, FinishReason, TokenLogprob, Usage

_REASONS = {
    "length": FinishReason.LENGTH,
    "content_filter": FinishReason.CONTENT_FILTER,
}


class UpstreamAnswer:
    """Reads the events of one answer, in the shapes of `openai.types.chat.ChatCompletionChunk`."""

    def __init__(self) -> None:
        self.reason: FinishReason | None = None
        self._usage: Usage | None = None
        self._pieces = 0
        self._half = ""

    def read(self, event: Any) -> list[Chunk]:  # noqa: ANN401
        """Take an event and return what it adds to the answer.

        Raises `AttributeError`, `TypeError`, `ValueError` for what is no event of a chat.
        """
        used = event.usage
        if used is not None:
            self._usage = Usage(int(used.prompt_tokens or 0), int(used.completion_tokens or 0))
        elif event.choices is None:
            raise TypeError(f"neither choices nor usage, but {event.to_json(indent=None)}")
        return [chunk for choice in event.choices or () for chunk in self._read(choice)]

    def end(self) -> list[Chunk]:
        """What is left of the text, and the last chunk."""
        rest = [Chunk("\ufffd")] if self._half else []
        # Upstreams that count nothing leave the number of pieces as the nearest known figure.
        usage = self._usage or Usage(0, self._pieces)
        return [*rest, Chunk("", finish_reason=self.reason, usage=usage)]

    def _read(self, choice: Any) -> list[Chunk]:  # noqa: ANN401
        if choice.finish_reason is not None:
            self.reason = _REASONS.get(choice.finish_reason, FinishReason.STOP)
        delta = choice.delta
        said = "" if delta is None else delta.content or getattr(delta, "refusal", None) or ""
        if not isinstance(said, str):
            raise TypeError(f"content is {type(said).__name__}, not text")
        text, logprobs = self._whole(said), _logprobs(choice)
        self._pieces += bool(said)
        return [Chunk(text, logprobs)] if text or logprobs else []

    def _whole(self, said: str) -> str:
        """The text without half a character at its end, which waits for the other half."""
        text, self._half = self._half + said, ""
        if text and "\ud800" <= text[-1] <= "\udbff":
            text, self._half = text[:-1], text[-1]
        return _valid(text)


def _valid(text: str) -> str:
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _logprobs(choice: Any) -> tuple[TokenLogprob, ...]:  # noqa: ANN401
    content = choice.logprobs.content if choice.logprobs else None
    return tuple(
        TokenLogprob(
            _valid(t.token),
            float(t.logprob),
            tuple((_valid(o.token), float(o.logprob)) for o in t.top_logprobs or ()),
        )
        for t in content or ()
    )
