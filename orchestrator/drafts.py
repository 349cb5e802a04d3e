"""Whole answers of several experts, made side by side, and the choice of the best.

For experts that share no vocabulary: bits per byte under the generalist compares their texts
without regard to tokenizers.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace

from experts.generation import Chunk, ExpertError, Generation, LocalMode, Score, TokenLogprob, Usage
from orchestrator.ports import ExpertPort

logger = logging.getLogger(__name__)

_WORD = re.compile(r"\w{4,}")


@dataclass(frozen=True)
class Draft:
    """One expert's whole answer; `weight` is the router's."""

    expert: str
    weight: float
    text: str
    logprobs: tuple[TokenLogprob, ...]
    last: Chunk


@dataclass(frozen=True)
class Drafts:
    """The drafts that came, and which expert did not deliver and why."""

    drafts: tuple[Draft, ...]
    failed: tuple[tuple[str, str], ...]


async def collect(
    request: Generation, ports: dict[str, ExpertPort], *, fanout: int, timeout: float
) -> Drafts:
    """Ask every expert of the request for a whole answer, at most `fanout` at a time.

    An expert that fails, in whatever way, or takes longer than `timeout` seconds is dropped and
    named: the others' drafts are not to go with it.
    """
    gate = asyncio.Semaphore(fanout)

    async def ask(name: str, weight: float) -> Draft | tuple[str, str]:
        alone = replace(
            request, id=f"{request.id}-{name}", experts=((name, 1.0),), mode=LocalMode.SINGLE
        )
        try:
            async with gate, asyncio.timeout(timeout):
                return await _draft(name, weight, ports[name], alone)
        except TimeoutError:
            return name, f"no answer within {timeout:g} s"
        except ExpertError as error:
            return name, str(error)
        except Exception as error:
            logger.exception("the draft of %s failed", name)
            return name, f"{type(error).__name__}: {error}"

    found = await asyncio.gather(*(ask(name, weight) for name, weight in request.experts))
    return Drafts(
        tuple(item for item in found if isinstance(item, Draft)),
        tuple(item for item in found if not isinstance(item, Draft)),
    )


async def _draft(name: str, weight: float, port: ExpertPort, request: Generation) -> Draft:
    chunks = []
    async with aclosing(port.generate(request)) as stream:
        async for chunk in stream:
            chunks.append(chunk)
    if not chunks or chunks[-1].finish_reason is None:
        raise ExpertError(f"{name}: the answer broke off")
    return Draft(
        name,
        weight,
        "".join(chunk.text for chunk in chunks),
        tuple(p for chunk in chunks for p in chunk.logprobs),
        chunks[-1],
    )


async def rank(
    drafts: Sequence[Draft],
    passages: Sequence[str],
    score: Callable[[str], Awaitable[Score]] | None,
) -> list[tuple[Draft, float]]:
    """The drafts, best first, by ln(weight) - bits per byte + groundedness.

    Bits per byte are those of the generalist and are left out where it cannot score. An empty
    draft comes last.
    """
    said = [d for d in drafts if d.text.strip()]
    scores = await asyncio.gather(*(score(d.text) for d in said)) if score else []
    bits = [s.bits_per_byte for s in scores] or [0.0] * len(said)
    points = [
        math.log(max(d.weight, 1e-9)) - cost + groundedness(d.text, passages)
        for d, cost in zip(said, bits, strict=True)
    ]
    ranked = sorted(zip(said, points, strict=True), key=lambda item: -item[1])
    return ranked + [(d, -math.inf) for d in drafts if d not in said]


def groundedness(text: str, passages: Sequence[str]) -> float:
    """Share of the text's words (four letters or more) that the passages hold; 0 without any."""
    words = _WORD.findall(text.casefold())
    known = set(_WORD.findall(" ".join(passages).casefold()))
    return sum(word in known for word in words) / len(words) if words and known else 0.0


def total_usage(usages: Sequence[Usage | None]) -> Usage:
    """All tokens that were read and written for one answer."""
    present = [usage for usage in usages if usage is not None]
    return Usage(sum(u.prompt_tokens for u in present), sum(u.completion_tokens for u in present))
