"""Adapters that wait for their invocation: from which token of a row on they act.

An activated LoRA (Greenewald et al. 2025, arXiv 2504.12397) acts from the last occurrence of its
invocation tokens in the prompt on, through the answer; as in PEFT, it never acts without one. The
tokens before are the base's, whatever the adapter.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from itertools import pairwise

Starts = Mapping[str, int]
"""Adapter that waits → position from which it acts; one that is not named acts everywhere."""

NEVER = sys.maxsize
"""Start of an adapter whose invocation the prompt does not have."""


def last_occurrence(tokens: Sequence[int], part: Sequence[int]) -> int | None:
    """Where `part` begins for the last time in `tokens`; None if it is not in them."""
    size, wanted = len(part), tuple(part)
    places = (n for n in range(len(tokens) - size, -1, -1) if tokens[n] == wanted[0])
    return next((n for n in places if tuple(tokens[n : n + size]) == wanted), None)


def start_of(prompt: Sequence[int], invocation: Sequence[int]) -> int:
    """The position of a prompt from which an adapter with this invocation acts."""
    found = last_occurrence(prompt, invocation)
    return NEVER if found is None else found


def shared_length(gate: Mapping[str, float], starts: Starts, prompt: int) -> int:
    """How many of the `prompt` tokens have the base's keys and values: until an adapter acts."""
    first = min((starts.get(name, 0) for name, weight in gate.items() if weight), default=prompt)
    return min(first, prompt)


def spans(
    gate: Mapping[str, float], starts: Starts, begin: int, count: int
) -> list[tuple[Mapping[str, float], int]]:
    """Cut `count` tokens from position `begin` on where an adapter begins to act.

    Returns:
        the gate and the number of tokens of each part, in their order.
    """
    if all(start <= begin for start in starts.values()):
        return [(gate, count)]
    inner = {start for start in starts.values() if begin < start < begin + count}
    return [
        ({name: w for name, w in gate.items() if starts.get(name, 0) <= first}, last - first)
        for first, last in pairwise((begin, *sorted(inner), begin + count))
    ]
