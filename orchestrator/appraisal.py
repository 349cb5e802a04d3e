"""How a version of the router would have done on the decisions of the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from orchestrator.config import Config
from orchestrator.registry import open_policy, open_registry
from router.logged_decision import LoggedDecision
from router.off_policy import Appraisal, appraise
from router.replay import Unplayable, reads_nothing, replay
from router.router import Router


@dataclass(frozen=True)
class Estimated:
    """The appraisal of a version, by name and hash; `left_out` counts scored rows by the reason.

    `appraisal` is None where no scored row is left.
    """

    version: str
    hash: str
    appraisal: Appraisal | None
    left_out: Mapping[str, int]


def estimate_version(
    config: Config, name: str, log: Iterable[LoggedDecision], resamples: int, seed: int = 0
) -> Estimated:
    """Replay the scored decisions of a log through a version, under the configured policy.

    Raises:
        VersionError: there is no such version, or it cannot be loaded.
        GateError: its gate does not promise `router.max_risk`.
    """
    router = open_router(config, name)
    kept: list[LoggedDecision] = []
    wanted: list[tuple[str, ...]] = []
    left_out: Counter[str] = Counter()
    for row in log:
        if row.score is None:
            continue
        try:
            choice = _choice(router, row, config.encoder.source)
        except Unplayable as error:
            left_out[str(error)] += 1
            continue
        wanted.append(choice)
        # What was read takes most of the memory, and has done its part.
        kept.append(replace(row, read=None, text=None))
    found = appraise(kept, wanted, resamples, seed) if kept else None
    return Estimated(name, router.version, found, dict(left_out.most_common()))


def open_router(config: Config, name: str) -> Router:
    """The router of a version under the configured policy; it reads features and no text.

    Raises:
        VersionError, GateError: see `estimate_version`.
    """
    gate = open_registry(config).gate(name)
    languages = {expert: settings.languages for expert, settings in config.experts.items()}
    kinds = {expert: settings.attachments for expert, settings in config.experts.items()}
    own = open_policy(config, gate), languages, config.disabled, kinds
    experts, general, first = list(config.experts), config.generalist, config.router.first_stage
    return Router(gate, reads_nothing, experts, general, *own, first_stage=first)


def _choice(router: Router, row: LoggedDecision, encoder: str) -> tuple[str, ...]:
    if row.stood_in:
        raise Unplayable("the generalist stood in for the chosen")
    if row.read is not None and row.read.encoder != encoder:
        raise Unplayable("its features are those of another encoder than the configured")
    return replay(router, row)
