"""The router: one conversation in, one decision out."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from router.chances import Chances, Roster
from router.decision import Decision
from router.evidence import Scale, SecondStage
from router.features import Encoder, Features, featurize
from router.gate import Gate, GateError
from router.leaning import Leaning, lean
from router.overrides import Overrides
from router.policy import Policy, Verdict, decide
from router.ranking import Ranking
from router.situation import CALM, Situation

NO_OVERRIDES = Overrides()


class Router:
    """Chooses experts by gate and policy; holds no state, so threads may share it.

    `encoder` maps n texts to unit vectors [n, d]; d must be the gate's. `experts` are the
    configured names; the generalist is a candidate whether or not it is among them. `languages`
    are what experts declare (BCP 47), for `locale`. `disabled` experts stay candidates without
    probability: what the gate gives them goes to the others in proportion. `kinds` are the
    attachments that experts declare to be for. With a `scale` every decision carries what a second
    stage needs (`evidence.py`).
    """

    def __init__(
        self,
        gate: Gate,
        encoder: Encoder,
        experts: Sequence[str],
        generalist: str,
        policy: Policy | None = None,
        languages: Mapping[str, Sequence[str]] | None = None,
        disabled: Sequence[str] = (),
        kinds: Mapping[str, Sequence[str]] | None = None,
        scale: Scale | None = None,
    ) -> None:
        self.gate = gate
        self.experts = tuple(dict.fromkeys((*experts, generalist)))
        self.generalist = generalist
        self.policy = policy or Policy()
        self._languages = dict(languages or {})
        self._encoder = encoder
        self._disabled = tuple(disabled)
        self._kinds, self._scale = dict(kinds or {}), scale
        self._version = gate.version
        self._roster = Roster(self.experts)
        places, heir = self._roster.places, self._roster.places[generalist]
        # A label that no expert bears leaves its probability to the generalist.
        self._heirs = np.array([places.get(label, heir) for label in gate.labels], dtype=np.int64)

    @property
    def version(self) -> str:
        """The gate's version, which every decision bears."""
        return self._version

    def route(
        self,
        messages: Sequence[tuple[str, str]],
        overrides: Overrides = NO_OVERRIDES,
        situation: Situation = CALM,
    ) -> Decision:
        """Return the decision on a conversation of (role, text) pairs, oldest first.

        Raises `ConversationError` where there is no text, `UnknownExpert` for a name in
        `overrides` that is no expert here, `OverrideError` where `max_cost` allows none,
        `GateError` where the encoder is not the gate's.
        """
        started = time.perf_counter()
        return self.decide(self.read(messages), overrides, situation, started)

    def read(self, messages: Sequence[tuple[str, str]]) -> Features:
        """Return the features of a conversation, which every version of the router reads alike.

        Raises `ConversationError` where there is no text.
        """
        return featurize(messages, self._encoder)

    def decide(
        self,
        features: Features,
        overrides: Overrides = NO_OVERRIDES,
        situation: Situation = CALM,
        started: float | None = None,
    ) -> Decision:
        """Return the decision on features; its `seconds` count from `started`, of `perf_counter`.

        Raises what `route` does, but for `ConversationError`.
        """
        begun = time.perf_counter() if started is None else started
        leaning = self._lean(self._probabilities(features), features, overrides, situation)
        verdict = decide(
            leaning.probabilities,
            self.generalist,
            self.policy,
            overrides,
            situation,
            self._disabled,
        )
        reason = "; ".join([verdict.reason, *leaning.notes])
        elapsed = time.perf_counter() - begun
        decision = self._decision(replace(verdict, reason=reason), features, elapsed)
        if self._scale is None:
            return decision
        return replace(decision, second=SecondStage(self.policy, self._scale, leaning.notes))

    def _lean(
        self,
        probabilities: Mapping[str, float],
        features: Features,
        overrides: Overrides,
        situation: Situation,
    ) -> Leaning:
        if overrides.weights is not None:
            return Leaning(probabilities)
        said = features.said
        declared = self._languages, self._kinds
        return lean(probabilities, said, self.generalist, overrides, situation, *declared)

    def _probabilities(self, features: Features) -> Chances:
        found = features.vectors.shape[1]
        if found != self.gate.vector_dimensions:
            raise GateError(
                f"the gate reads sentence vectors of {self.gate.vector_dimensions} numbers "
                f"({self.gate.encoder or 'encoder not named'}); this encoder gives {found}."
            )
        row = self.gate.judge(features.joined(), [0], self.generalist)[0]
        shared = np.bincount(self._heirs, weights=row, minlength=len(self.experts))
        return Chances(self._roster, np.asarray(shared, dtype=np.float64))

    def _decision(self, verdict: Verdict, features: Features, seconds: float) -> Decision:
        return Decision(
            candidates=Ranking(Chances.of(verdict.probabilities), verdict.weights),
            chosen=tuple(verdict.weights),
            k=len(verdict.weights),
            reason=verdict.reason,
            fallback=verdict.abstained,
            abstained=verdict.abstained,
            router_version=self._version,
            seconds=seconds,
            vector=features.vector,
        )
