"""The versions of the router as the configuration has them.

Apart from the replicas, so that a command which rolls back need not load torch.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import router as router_room
from experts.store import default_home
from orchestrator.config import Config
from router.bars import Bar
from router.conformal import promised_confidence
from router.evidence import EVIDENCE_FILE, EvidenceError, Scale
from router.gate import Gate
from router.policy import Policy
from router.standards import Standards
from router.versions import Registry


def open_registry(config: Config) -> Registry:
    """The versions of the router; version 0 is the gate that the configuration names."""
    embedded = Path(router_room.__file__).parent / "weights"
    settings = config.router
    origin = embedded if settings.weights == "embedded" else Path(settings.weights)
    versions = settings.versions
    return Registry(Path(versions) if versions else default_home() / "router", origin)


def standards(config: Config) -> Standards:
    """What a version of the router is judged by before it may act."""
    gates = config.router.gates.items()
    bars = tuple(Bar(metric, **limits.model_dump()) for metric, limits in gates)
    usable = partial(open_policy, config)
    return Standards(bars, tuple(config.experts), config.disabled, usable)


def open_policy(config: Config, gate: Gate) -> Policy:
    """The policy of the configuration over this gate.

    Raises:
        GateError: the gate does not promise `router.max_risk`.
    """
    settings = config.router
    policy = Policy(settings.top_k, settings.top_p, min_weight=settings.min_weight)
    if settings.min_confidence is not None:
        return replace(policy, min_confidence=settings.min_confidence)
    if settings.max_risk is not None:
        confidence = promised_confidence(gate.metadata, settings.max_risk)
        return replace(policy, min_confidence=confidence, max_risk=settings.max_risk)
    return policy


def open_scale(config: Config) -> Scale | None:
    """How retrieval evidence weighs: what was fitted, beside the versions; None where it does not.

    Raises:
        EvidenceError: the file cannot be used.
    """
    if not config.router.evidence:
        return None
    scale = Scale.load(open_registry(config).folder)
    made, present = scale.metadata.get("encoder"), config.encoder.source
    if made not in (None, present):
        raise EvidenceError(
            f"{EVIDENCE_FILE} was fitted to the encoder {made!r}, the present one is {present!r}: "
            "run `collegium train evidence` again, or delete the file."
        )
    return scale
