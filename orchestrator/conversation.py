"""A request's messages as experts and router read them, attachments included."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orchestrator.attachment import Attachment, joined, read_attachment
from orchestrator.config import LimitsConfig
from orchestrator.content import FilePart
from orchestrator.errors import InvalidRequest
from orchestrator.request import ChatMessage, Role

Messages = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Conversation:
    """(role, text) pairs, oldest first: as `written` for experts, and as `read` by the router.

    They differ where something is attached: experts get it framed as data, the router bare.
    `question` is what the user wrote last, without what is attached to it unless that is all;
    `attached` are the kinds of files in the user's last message (`.py`, `text/x-python`).
    """

    written: Messages
    read: Messages
    question: str
    attached: tuple[str, ...]

    @classmethod
    def of(cls, messages: Sequence[ChatMessage], limits: LimitsConfig) -> Conversation:
        """Read the messages of a request.

        Raises:
            InvalidRequest: too many or too long messages or attachments, or none of the user's.
        """
        _check_counts(messages, limits)
        turns = [_turn(number, message, limits) for number, message in enumerate(messages)]
        roles = [str(_role(message)) for message in messages]
        written = tuple(zip(roles, (joined(turn, framed=True) for turn in turns), strict=True))
        read = tuple(zip(roles, (joined(turn, framed=False) for turn in turns), strict=True))
        said = [n for n, role in enumerate(roles) if role == Role.USER]
        if not any(read[n][1].strip() for n in said):
            raise InvalidRequest(
                "`messages` must hold at least one message of role `user` with text.",
                param="messages",
            )
        _check_size(written, limits)
        last = turns[said[-1]]
        own = "".join(piece for piece in last if isinstance(piece, str))
        kinds = [kind for piece in last if isinstance(piece, Attachment) for kind in piece.kinds]
        question = own if own.strip() else read[said[-1]][1]
        return cls(written, read, question, tuple(dict.fromkeys(kinds)))


def _turn(number: int, message: ChatMessage, limits: LimitsConfig) -> list[str | Attachment]:
    pieces: list[str | Attachment] = []
    for place, part in enumerate(message.parts):
        where = f"messages[{number}].content[{place}]"
        if isinstance(part, str):
            # JSON may carry lone surrogates, which neither tokenizers nor responses can hold.
            pieces.append(part.encode("utf-8", "replace").decode("utf-8"))
        elif message.role is not Role.USER:
            raise InvalidRequest(
                f"`{where}` is a file in a message of role {str(message.role)!r}: attach files to "
                "messages of role 'user'.",
                param=where,
            )
        else:
            pieces.append(read_attachment(part.file, where, limits.max_attachment_bytes))
    return pieces


def _role(message: ChatMessage) -> Role:
    return Role.SYSTEM if message.role is Role.DEVELOPER else message.role


def _check_counts(messages: Sequence[ChatMessage], limits: LimitsConfig) -> None:
    if len(messages) > limits.max_messages:
        raise InvalidRequest(
            f"`messages` has {len(messages)} items, at most {limits.max_messages} are "
            "allowed: leave out the oldest.",
            param="messages",
        )
    for count, where in enumerate(_files(messages), start=1):
        if count > limits.max_attachments:
            raise InvalidRequest(
                f"`{where}` is one file too many, at most {limits.max_attachments} are allowed in "
                "one request: leave out the oldest, or join them.",
                param=where,
            )


def _files(messages: Sequence[ChatMessage]) -> Iterator[str]:
    for number, message in enumerate(messages):
        for place, part in enumerate(message.parts):
            if isinstance(part, FilePart):
                yield f"messages[{number}].content[{place}]"


def _check_size(messages: Messages, limits: LimitsConfig) -> None:
    size = sum(len(text) for _, text in messages)
    if size > limits.max_prompt_characters:
        raise InvalidRequest(
            f"`messages` hold {size} characters, at most {limits.max_prompt_characters} are "
            "allowed: shorten them.",
            param="messages",
            code="context_length_exceeded",
        )
