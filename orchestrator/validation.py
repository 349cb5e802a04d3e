"""What pydantic found wrong with a value, in sentences that teach.

A problem is one entry of `pydantic.ValidationError.errors()`: its `type`, `loc`, `msg`, `input` and
`ctx`. Problems raised by `orchestrator.strict_model.refuse` carry their key in `ctx` and complete
the sentence themselves.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

Problem = Mapping[str, Any]

SHOWN_CHARACTERS = 80


def path(problem: Problem) -> str | None:
    """Where the problem lies, as "messages[0].content"; None for the body itself."""
    if problem["type"] == "json_invalid":
        return None
    return "".join(_steps(problem)).removeprefix(".") or None


def _steps(problem: Problem) -> Iterator[str]:
    location = list(problem["loc"])
    if location[:1] == ["body"]:
        location = location[1:]
    if problem.get("ctx", {}).get("key"):
        location.append(problem["ctx"]["key"])
    for step in location:
        if isinstance(step, int):
            yield f"[{step}]"
        elif not step.startswith("<"):
            yield f".{step}"


def merged(
    title: str,
    body: object,
    found: Iterable[PydanticCustomError],
    others: ValidationError | None = None,
) -> ValidationError:
    """One error of all these faults of `body`; raised in a validator, they get its place in front.

    `found` come first. Pydantic itself stops at the first error that a validator raises.
    """
    lines: list[InitErrorDetails] = [{"type": fault, "input": body} for fault in found]
    for problem in others.errors(include_url=False) if others else ():
        # Errors of pydantic's own kinds become custom ones: not each can be made a second time.
        context = {**problem.get("ctx", {}), "message": problem["msg"]}
        kind = PydanticCustomError(problem["type"], "{message}", context)
        lines.append({"type": kind, "loc": problem["loc"], "input": problem["input"]})
    return ValidationError.from_exception_data(title, lines)


def sentence(problem: Problem) -> str:
    """Say where the problem lies, what is asked for there, and what was sent instead."""
    param = path(problem)
    context = problem.get("ctx", {})
    if problem["type"] == "json_invalid":
        return f"The body is not valid JSON: {context.get('error', problem['msg'])}."
    subject = f"`{param}`" if param else "The body"
    if "key" in context:
        return f"{subject} {problem['msg']}."
    if problem["type"] == "missing":
        return f"{subject} is required but was not sent."
    return f"{subject} {_demand(problem)}, but {_sent(problem['input'])} was sent."


def _demand(problem: Problem) -> str:
    # Pydantic says "Input should be ..." or "List should have ... after validation, not 5".
    if problem["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return "must be a JSON object"
    message = re.sub(r"^\w+ should ", "must ", problem["msg"])
    message = re.sub(r" after validation, not \d+$", "", message)
    return message if message.startswith("must ") else f"is wrong ({message})"


def _sent(value: object) -> str:
    try:
        return shown(json.dumps(value, ensure_ascii=False))
    except (TypeError, ValueError):
        return shown(repr(value))


def shown(text: str) -> str:
    """Quote foreign text at bearable length."""
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "..."
