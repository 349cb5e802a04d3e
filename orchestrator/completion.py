"""From the pipeline's events to OpenAI's bodies: one completion, or chunks of a stream."""

from __future__ import annotations

import time
from collections.abc import Sequence

from pydantic import BaseModel

from experts.generation import TokenLogprob as Logprob
from orchestrator.answer_event import Delta as Piece
from orchestrator.answer_event import Finish
from orchestrator.wire import (
    Annotation,
    ChatCompletion,
    ChatCompletionChunk,
    Choice,
    ChoiceLogprobs,
    ChunkChoice,
    Delta,
    ResponseMessage,
    TokenLogprob,
    TopLogprob,
    UrlCitation,
    Usage,
)
from retrieval.attribution import Citation

_IMPOSSIBLE = -9999.0
"""OpenAI's figure for a probability of 0, whose logarithm JSON cannot hold."""


class Completion:
    """Builds the bodies of one answer; `id` and `model` are the same in all of them."""

    def __init__(self, id: str, model: str) -> None:
        self._id, self._model = id, model
        self._created = int(time.time())

    def whole(self, pieces: Sequence[Piece], finish: Finish, *, logprobs: bool) -> ChatCompletion:
        """The body of an answer that is not streamed."""
        said = [p for piece in pieces for p in piece.logprobs]
        message = ResponseMessage(
            content="".join(piece.text for piece in pieces),
            annotations=_annotations(finish.citations),
        )
        choice = Choice(
            message=message,
            logprobs=_logprobs(said) if logprobs else None,
            finish_reason=str(finish.reason),
        )
        return ChatCompletion(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[choice],
            usage=_usage(finish),
            x_routing=finish.routing,
        )

    def first(self) -> ChatCompletionChunk:
        """The chunk that opens the assistant's turn."""
        return self._chunk(ChunkChoice(delta=Delta(role="assistant", content="")))

    def piece(self, piece: Piece) -> ChatCompletionChunk:
        """A chunk of text."""
        logprobs = _logprobs(piece.logprobs) if piece.logprobs else None
        return self._chunk(ChunkChoice(delta=Delta(content=piece.text), logprobs=logprobs))

    def last(self, finish: Finish) -> ChatCompletionChunk:
        """The chunk with the reason, the annotations and the routing report."""
        delta = Delta(annotations=_annotations(finish.citations) or None)
        chunk = self._chunk(ChunkChoice(delta=delta, finish_reason=str(finish.reason)))
        return chunk.model_copy(update={"x_routing": finish.routing})

    def usage(self, finish: Finish) -> ChatCompletionChunk:
        """The chunk that follows when the caller asked for usage."""
        return ChatCompletionChunk(
            id=self._id,
            created=self._created,
            model=self._model,
            choices=[],
            usage=_usage(finish),
        )

    def _chunk(self, choice: ChunkChoice) -> ChatCompletionChunk:
        return ChatCompletionChunk(
            id=self._id, created=self._created, model=self._model, choices=[choice]
        )

    def sent(self, event: Piece | Finish, *, usage: bool) -> bytes:
        """The server-sent events of an event of the pipeline, `usage` of the last one apart."""
        if isinstance(event, Piece):
            return sent(self.piece(event))
        return sent(self.last(event)) + (sent(self.usage(event)) if usage else b"")


def sent(body: BaseModel) -> bytes:
    """A body as a server-sent event."""
    return b"data: " + body.model_dump_json().encode() + b"\n\n"


def _usage(finish: Finish) -> Usage:
    read, written = finish.usage.prompt_tokens, finish.usage.completion_tokens
    return Usage(prompt_tokens=read, completion_tokens=written, total_tokens=read + written)


def _annotations(citations: Sequence[Citation]) -> list[Annotation]:
    return [
        Annotation(
            url_citation=UrlCitation(
                start_index=c.start_index,
                end_index=c.end_index,
                title=c.title,
                url=c.url,
                collection=c.collection,
                passage_id=c.passage_id,
                start=c.start,
                end=c.end,
                score=c.score,
                page=c.page,
                line=c.line,
                sha256=c.sha256 or None,
            )
        )
        for c in citations
    ]


def _logprobs(said: Sequence[Logprob]) -> ChoiceLogprobs:
    return ChoiceLogprobs(
        content=[
            TokenLogprob(
                token=p.token,
                logprob=max(p.logprob, _IMPOSSIBLE),
                bytes=_bytes(p.token),
                top_logprobs=[
                    TopLogprob(token=t, logprob=max(value, _IMPOSSIBLE), bytes=_bytes(t))
                    for t, value in p.top
                ],
            )
            for p in said
        ]
    )


def _bytes(token: str) -> list[int] | None:
    # Of a token that is a part of a character only the replacement is known.
    return None if "\ufffd" in token else list(token.encode())
