"""Training examples: prompt and response rows, read, filtered, tokenised and bucketed by length."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experts.template import render_prompt

SHORT_RESPONSE = 40
UNNAMED = "unnamed"
_TEXTS = ("prompt", "response", "source", "license", "lang", "system")


class ExampleError(ValueError):
    """A data file cannot be trained on; the message names file, line and what is missing."""


@dataclass(frozen=True)
class Row:
    """One prompt with the response that is to be learned, and where it comes from.

    `system` is a message in front of the prompt, as sources to answer from are; "" for none.
    """

    id: str
    prompt: str
    response: str
    source: str = ""
    license: str = ""
    lang: str = ""
    system: str = ""


@dataclass(frozen=True)
class Example:
    """A tokenised row: `tokens[:prompt_length]` is context, the rest is trained on."""

    row: Row
    tokens: tuple[int, ...]
    prompt_length: int

    @property
    def response_length(self) -> int:
        """Number of tokens that carry loss."""
        return len(self.tokens) - self.prompt_length


def read_rows(paths: Iterable[Path], *, exclude_licenses: Sequence[str] = ()) -> list[Row]:
    """Rows of JSON Lines files with `prompt` and `response`; rows without a response are left out.

    Args:
        exclude_licenses: a row is left out when its `license` contains one of these (any case);
            a row without one counts as `unnamed`.

    Raises:
        ExampleError: a line is not JSON, or its keys are not texts; names file and line.
    """
    rows = []
    banned = [text.casefold() for text in exclude_licenses]
    for path in paths:
        for number, line in enumerate(_lines(path), start=1):
            if not line.strip():
                continue
            row = _row(line, f"{path.name}:{number}")
            license_name = (row.license or UNNAMED).casefold()
            if row.response and not any(text in license_name for text in banned):
                rows.append(row)
    return rows


def split_rows(rows: Sequence[Row], held_out: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Split into (train, held out) by a hash of the prompt, so equal prompts stay together."""
    bound = int(held_out * 2**32)
    parts: tuple[list[Row], list[Row]] = ([], [])
    for row in rows:
        digest = hashlib.blake2b(f"{seed}:{row.prompt}".encode(), digest_size=4).digest()
        parts[int.from_bytes(digest, "big") < bound].append(row)
    return parts


def tokenise(tokenizer: Any, row: Row, max_length: int) -> Example | None:  # noqa: ANN401
    """The row under the model's own chat template; None if the prompt leaves no room.

    A response beyond `max_length` tokens is cut, and then its end mark is not learned.
    """
    system = [("system", row.system)] if row.system else []
    prompt = render_prompt(tokenizer, [*system, ("user", row.prompt)])
    response = tokenizer.encode(row.response, add_special_tokens=False)
    tokens = (*prompt, *response, tokenizer.eos_token_id)[:max_length]
    whole = len(prompt) + 1 < len(tokens)
    return Example(row, tuple(tokens), len(prompt)) if whole else None


def choose(
    examples: Sequence[Example], budget: int, seed: int, *, short_share: float = 1.0
) -> list[Example]:
    """A seeded random choice of examples whose trained tokens just reach `budget`.

    Args:
        short_share: at most this share of the chosen rows, 0..1, has a response under
            `SHORT_RESPONSE` characters. Bare labels carry few tokens each, so a budget of tokens
            takes very many of them, and the expert learns to answer every question that way.
    """
    waiting = list(examples)
    random.Random(seed).shuffle(waiting)
    chosen: list[Example] = []
    spent = short = 0
    # Once more for short ones that came too early: in small data the budget may need them.
    for _ in range(2):
        skipped = []
        for example in waiting:
            if spent >= budget:
                break
            is_short = len(example.row.response) < SHORT_RESPONSE
            if is_short and short + 1 > short_share * (len(chosen) + 1):
                skipped.append(example)
                continue
            short += is_short
            chosen.append(example)
            spent += example.response_length
        waiting = skipped
    return chosen


def bucket(examples: Sequence[Example], batch_tokens: int, seed: int) -> list[list[Example]]:
    """Batches of similar length with at most `batch_tokens` padded tokens, in a seeded order."""
    rng = random.Random(seed)
    order = list(examples)
    rng.shuffle(order)
    order.sort(key=lambda example: len(example.tokens) // 16)
    batches: list[list[Example]] = []
    for example in order:
        widest = len(example.tokens)
        last = batches[-1] if batches else []
        if last and max(widest, *(len(e.tokens) for e in last)) * (len(last) + 1) <= batch_tokens:
            last.append(example)
        else:
            batches.append([example])
    rng.shuffle(batches)
    return batches


def _lines(path: Path) -> list[str]:
    try:
        # Only "\n" ends a line: str.splitlines would also cut at U+2028 inside a text.
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ExampleError(f"{path.name}: not UTF-8 ({error})") from error


def _row(line: str, where: str) -> Row:
    try:
        body = json.loads(line)
    except json.JSONDecodeError as error:
        raise ExampleError(f"{where}: not JSON ({error})") from error
    if not isinstance(body, dict) or body.get("prompt") is None:
        raise ExampleError(f"{where}: needs an object with the text keys `prompt` and `response`")
    texts = {key: "" if body.get(key) is None else body[key] for key in _TEXTS}
    for key, value in texts.items():
        if not isinstance(value, str):
            raise ExampleError(f"{where}: `{key}` must be a text, not {json.dumps(value)}")
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise ExampleError(f"{where}: `{key}` holds half of a surrogate pair, which is no text")
    return Row(id=str(body.get("id", where)), **texts)
