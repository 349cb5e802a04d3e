"""The figures of `benchmarks.many_experts`: the router and its peers on the held-out rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from benchmarks.decisive import Indices
from benchmarks.many_plan import BASE, Plan, Progress, StageError
from benchmarks.many_stages import STAMP, taught_losses
from benchmarks.right_adapter import Bout, figures
from benchmarks.specialists import RECORD
from benchmarks.split import read_table
from router.dataset import LabelledPrompt
from router.features import Vector, featurize
from router.gate import Gate
from router.memory import EncoderMemory
from router.peers import PeerError, fit_peers, lessons
from router.policy import Policy
from router.router import Router
from router.stakes import BY_LABEL, ROUTER, measure_regret
from router.trials import run_trials

EPSILON = 0.05
RESAMPLES = 1000
FIRST = Policy(top_k=1, top_p=1.0, min_confidence=0.0)
"""The most probable adapter always: the question is which one is right, not whether one is."""


def proof(plan: Plan, progress: Progress) -> dict[str, Any]:
    """Every figure of the report. Raises `StageError` where an earlier stage has not been run."""
    kept, rows = plan.losses(), plan.prompts("held_out")
    known = [kept.of(row.text) for row in rows]
    if not (plan.gate / STAMP).is_file() or all(found is None for found in known):
        raise StageError("there is no gate, or there are no losses: `losses` and `gate` come first")
    learned = Gate.load(plan.gate)
    memory = plan.memory([*rows, *plan.prompts("adapter", "gate")], progress)
    trials = run_trials(Router(learned, memory, learned.labels, BASE, FIRST), rows)
    notes: list[str] = []
    peers = _peers(plan, trials.experts, rows, memory, notes)
    columns = {name: place for place, name in enumerate(trials.experts)}
    labels = _columns(columns, [row.labels[0] for row in rows])
    choices = {ROUTER: trials.likeliest, BY_LABEL: labels}
    choices |= {name: _columns(columns, chosen) for name, chosen in peers.items()}
    order = [kept.table.experts.index(name) for name in trials.experts]
    by_token = [None if found is None else found[order] for found in known]
    seed = plan.limits.seed
    # Without a threshold nothing is promised, so one set of trials serves for both.
    given = trials, trials, kept.table, peers, None, EPSILON, RESAMPLES, seed
    regret = measure_regret(*given)["regret"]
    return {
        **_about(plan, learned),
        "notes": notes,
        **figures(Bout(trials.experts, BASE, labels, by_token, choices), ROUTER),
        "regret": regret,
    }


def _peers(
    plan: Plan,
    experts: Sequence[str],
    asked: Sequence[LabelledPrompt],
    memory: EncoderMemory,
    notes: list[str],
) -> Mapping[str, Sequence[str]]:
    rows = plan.prompts("adapter", "gate")
    known = taught_losses(plan).matrix([row.text for row in rows], experts)
    taught = lessons(rows, _vectors(rows, memory), experts, known)
    try:
        peers = fit_peers(taught, plan.limits.seed)
    except PeerError as error:
        notes.append(f"Without peers: {error}.")
        return {}
    vectors = _vectors(asked, memory)
    return {peer.name: peer.answer(vectors).names for peer in peers}


def _vectors(rows: Sequence[LabelledPrompt], memory: EncoderMemory) -> Vector:
    """[n, d], as the router's own are."""
    return np.stack([featurize([("user", row.text)], memory).vector for row in rows])


def _columns(columns: Mapping[str, int], names: Sequence[str]) -> Indices:
    return np.asarray([columns[name] for name in names], dtype=np.int64)


def _about(plan: Plan, learned: Gate) -> dict[str, Any]:
    table = read_table(plan.split)
    return {
        "settings": {
            "limits": table["limits"],
            "training": asdict(plan.options),
            "answer_tokens": plan.answer_tokens,
            "short_rows": plan.short_rows,
            "gate_losses": plan.gate_losses,
            "base": plan.base,
            "encoder": plan.encoder,
        },
        "dealt": table["sub_domains"],
        "left_out": table["left_out"],
        "adapters": {
            name: json.loads((plan.adapters / name / RECORD).read_text(encoding="utf-8"))
            for name in plan.names()
        },
        "gate": {
            "version": learned.version,
            "rows": learned.metadata["trained_rows"],
            "rows_with_losses": learned.metadata["rows_with_losses"],
        },
    }
