"""How long the first stage takes: over what it settles, and in vain."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from benchmarks.measure import quantile, seconds, spread
from benchmarks.report import Goal, Row, Section
from router.features import Vector, skim
from router.first import FirstStage
from router.gate import Gate
from router.parts import WHOLE_CHARACTERS
from router.router import Router
from router.surface import SURFACE_DIMENSIONS

NEVER, ALWAYS = 2.0, 1e-9
SHARP = 1e-4


def no_encoder(texts: Sequence[str]) -> Vector:
    """Stand in for the encoder of a router that settles all."""
    raise AssertionError(f"{len(texts)} texts were not settled")


def first_stage(router: Router, prompts: Sequence[str], rounds: int) -> Section:
    """Decisions that it makes, and what it costs where the gate decides after all.

    The threshold is moved so that it settles every prompt, or none; how many it settles in earnest
    `collegium eval router` tells. Prompts are those given, and the longest that it reads.
    """
    longest = [(f"{text}\n" * WHOLE_CHARACTERS)[:WHOLE_CHARACTERS].strip() for text in prompts]
    settles, tries = (_moved(router, threshold) for threshold in (ALWAYS, NEVER))
    rows = []
    for kind, texts in (("short", prompts), ("longest", longest)):
        took = _times(settles.route, texts, rounds)
        rows += [
            Row(f"settled, {kind}, p50", spread(took), Goal(2.0), unit="ms"),
            Row(f"settled, {kind}, p99", quantile(took, 0.99), Goal(2.0), unit="ms"),
        ]
    skims = {text: skim([("user", text)]) for text in prompts}
    vain = [
        1000 * seconds(lambda text=text: tries.settle(skims[text]))  # type: ignore[misc]
        for _ in range(rounds)
        for text in prompts
    ]
    rows.append(Row("in vain, beside reading the surface", spread(vain), unit="ms"))
    return Section("first_stage", rows)


def _times(
    route: Callable[[Sequence[tuple[str, str]]], object], texts: Sequence[str], rounds: int
) -> list[float]:
    for text in texts:
        route([("user", text)])
    return [
        1000 * seconds(lambda text=text: route([("user", text)]))  # type: ignore[misc]
        for _ in range(rounds)
        for text in texts
    ]


def _moved(router: Router, threshold: float) -> Router:
    """The router with another threshold; where its gate has no first stage, with a stand-in."""
    gate = router.gate
    first = gate.first or _stand_in(gate)
    # So sharp that one expert is chosen alone.
    moved = replace(first, temperature=SHARP, threshold=threshold)
    moved_gate = replace(gate, first=moved, taught=None, labels=gate.labels[: _trained(gate)])
    return Router(moved_gate, no_encoder, router.experts, router.generalist, router.policy)


def _stand_in(gate: Gate) -> FirstStage:
    return FirstStage(gate.weight[:, -SURFACE_DIMENSIONS:], gate.bias)


def _trained(gate: Gate) -> int:
    return len(gate.labels) - (len(gate.taught.names) if gate.taught else 0)
