"""The router: one conversation in, one decision out."""

import time
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from router.address import spoken
from router.chances import Chances, Roster
from router.decision import Decision, Stage
from router.evidence import Scale, SecondStage
from router.features import Encoder, Features, Skim, Vector, skim
from router.gate import Gate, GateError
from router.leaning import Leaning, lean
from router.overrides import Overrides
from router.policy import Policy, Verdict, decide
from router.ranking import Ranking
from router.situation import CALM, Situation

NO_OVERRIDES = Overrides()
SETTLED = "the text's script and spelling alone make the first stage sure of it"
ASIDE = "lines that name an expert were left aside"


class Router:
    """Chooses experts by gate and policy; holds no state, so threads may share it.

    `encoder` maps n texts to unit vectors [n, d]; d must be the gate's. `experts` are the
    configured names; the generalist is a candidate whether or not it is among them. `languages`
    are what experts declare (BCP 47), for `locale`. `disabled` experts stay candidates without
    probability: what the gate gives them goes to the others in proportion. `kinds` are the
    attachments that experts declare to be for. With a `scale` every decision carries what a second
    stage needs (`evidence.py`). `first_stage` lets that of the gate settle the sure cases without
    the encoder.
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
        *,
        first_stage: bool = True,
    ) -> None:
        self.gate = gate
        self.experts = tuple(dict.fromkeys((*experts, generalist)))
        self.generalist = generalist
        self.policy = policy or Policy()
        self._languages = dict(languages or {})
        self._encoder = encoder
        self._disabled = tuple(disabled)
        self._kinds, self._scale = dict(kinds or {}), scale
        # A promise of rare regret is one on what the gate itself is sure of, and a second stage
        # needs the vector anyway.
        self._first_stage = first_stage and self.policy.max_risk is None and scale is None
        self._version = gate.version
        self._roster, self._names = Roster(self.experts), spoken(self.experts)
        places, heir = self._roster.places, self._roster.places[generalist]
        # A label that no expert bears leaves its probability to the generalist.
        self._heirs = np.array([places.get(label, heir) for label in gate.labels], dtype=np.int64)

    @property
    def version(self) -> str:
        """The gate's version, which every decision bears."""
        return self._version

    def without_first_stage(self) -> "Router":
        """Return a router like this one that asks the gate always."""
        found = copy(self)
        found._first_stage = False
        return found

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
        skimmed = self.skim(messages)
        settled = self.settle(skimmed, overrides, situation, started)
        if settled is not None:
            return settled
        return self.decide(self.read(skimmed), overrides, situation, started)

    def skim(self, messages: Sequence[tuple[str, str]]) -> Skim:
        """Return what can be read of a conversation without the encoder.

        Raises `ConversationError` where there is no text.
        """
        return skim(messages, self._names)

    def read(self, messages: Sequence[tuple[str, str]] | Skim) -> Features:
        """Return the features of a conversation, which other versions of the router can judge too.

        Lines that name an expert are read where the policy's `min_confidence` is not reached by the
        rest.
        Raises `ConversationError` where there is no text.
        """
        skimmed = messages if isinstance(messages, Skim) else self.skim(messages)
        features = skimmed.read(self._encoder)
        whole, least = skimmed.whole, self.policy.min_confidence
        if whole is not None and self._probabilities(features).array.max() < least:
            features = whole.read(self._encoder)
        return features

    def settle(
        self,
        skimmed: Skim,
        overrides: Overrides = NO_OVERRIDES,
        situation: Situation = CALM,
        started: float | None = None,
    ) -> Decision | None:
        """Return the first stage's decision on what was skimmed; None where the gate must be asked.

        It settles single messages of one part, and only where the expert of which it is sure acts,
        alone: nothing leans the choice, and neither limits nor disabled experts change it. What the
        request sets for the policy is held against the gate's probabilities, never against these.
        Raises what `decide` does for overrides that cannot be obeyed.
        """
        begun = time.perf_counter() if started is None else started
        if not (self._first_stage and skimmed.alone and is_plain(overrides, situation)):
            return None
        row = self.gate.settle(skimmed.surfaces[0])
        if row is None:
            return None
        chances = self._chances(row)
        verdict = self._decide(chances, overrides, situation)
        sure = self.experts[int(chances.array.argmax())]
        if verdict.abstained or list(verdict.weights) != [sure]:
            return None
        elapsed = time.perf_counter() - begun
        aside = [ASIDE] if skimmed.whole else []
        reason = "; ".join([verdict.reason, SETTLED, *aside])
        return self._decision(replace(verdict, reason=reason), None, elapsed, "first")

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
        verdict = self._decide(leaning.probabilities, overrides, situation)
        notes = (*leaning.notes, ASIDE) if features.aside else leaning.notes
        noted = replace(verdict, reason="; ".join([verdict.reason, *notes]))
        elapsed = time.perf_counter() - begun
        decision = self._decision(noted, features.vector, elapsed, "gate")
        if self._scale is None:
            return decision
        return replace(decision, second=SecondStage(self.policy, self._scale, notes))

    def _decide(
        self, probabilities: Mapping[str, float], overrides: Overrides, situation: Situation
    ) -> Verdict:
        general, policy, closed = self.generalist, self.policy, self._disabled
        return decide(probabilities, general, policy, overrides, situation, closed)

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
        return self._chances(self.gate.judge(features.joined(), [0], self.generalist)[0])

    def _chances(self, row: npt.NDArray[np.float64]) -> Chances:
        """Of the probabilities [labels] of the gate, or of its first stage."""
        shared = np.bincount(self._heirs, weights=row, minlength=len(self.experts))
        return Chances(self._roster, np.asarray(shared, dtype=np.float64))

    def _decision(
        self, verdict: Verdict, vector: Vector | None, seconds: float, stage: Stage
    ) -> Decision:
        return Decision(
            candidates=Ranking(Chances.of(verdict.probabilities), verdict.weights),
            chosen=tuple(verdict.weights),
            k=len(verdict.weights),
            reason=verdict.reason,
            fallback=verdict.abstained,
            abstained=verdict.abstained,
            router_version=self._version,
            seconds=seconds,
            vector=vector,
            stage=stage,
        )


def is_plain(overrides: Overrides, situation: Situation) -> bool:
    """Tell whether a request leaves the gate's probabilities and the policy as they are.

    It may bound who answers and at what cost; it does not lean, attaches nothing, and has no
    session to follow.
    """
    bounds = replace(overrides, experts=None, top_k=None, max_cost=None)
    return bounds == NO_OVERRIDES and not (situation.previous or situation.attached)
