"""The router: one conversation in, one decision out."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace

from router.calibration import softmax
from router.decision import Candidate, Decision
from router.features import Encoder, Features, featurize
from router.gate import Gate, GateError
from router.leaning import Leaning, lean
from router.overrides import Overrides
from router.parts import strongest
from router.policy import Policy, Verdict, decide, project
from router.situation import CALM, Situation

NO_OVERRIDES = Overrides()


class Router:
    """Chooses experts by gate and policy; holds no state, so threads may share it.

    `encoder` maps n texts to unit vectors [n, d]; d must be the gate's. `experts` are the
    configured names; the generalist is a candidate whether or not it is among them. `languages`
    are what experts declare (BCP 47), for `locale`.
    """

    def __init__(
        self,
        gate: Gate,
        encoder: Encoder,
        experts: Sequence[str],
        generalist: str,
        policy: Policy | None = None,
        languages: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.gate = gate
        self.experts = tuple(dict.fromkeys((*experts, generalist)))
        self.generalist = generalist
        self.policy = policy or Policy()
        self._languages = dict(languages or {})
        self._encoder = encoder
        self._version = gate.version
        self._own = gate.labels.index(generalist) if generalist in gate.labels else None

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
        verdict = decide(leaning.probabilities, self.generalist, self.policy, overrides, situation)
        reason = "; ".join([verdict.reason, *leaning.notes])
        elapsed = time.perf_counter() - begun
        return self._decision(replace(verdict, reason=reason), features, elapsed)

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
        return lean(probabilities, said, self.generalist, overrides, situation, self._languages)

    def _probabilities(self, features: Features) -> dict[str, float]:
        found = features.vectors.shape[1]
        if found != self.gate.vector_dimensions:
            raise GateError(
                f"the gate reads sentence vectors of {self.gate.vector_dimensions} numbers "
                f"({self.gate.encoder or 'encoder not named'}); this encoder gives {found}."
            )
        scores = strongest(self.gate.scores(features.joined()), [0], self._own)
        row = softmax(scores[0], self.gate.temperature)
        by_label = dict(zip(self.gate.labels, row.tolist(), strict=True))
        return project(by_label, self.experts, self.generalist)

    def _decision(self, verdict: Verdict, features: Features, seconds: float) -> Decision:
        ranked = sorted(verdict.probabilities.items(), key=lambda item: -item[1])
        return Decision(
            candidates=tuple(
                Candidate(name, probability, verdict.weights.get(name, 0.0))
                for name, probability in ranked
            ),
            chosen=tuple(verdict.weights),
            k=len(verdict.weights),
            reason=verdict.reason,
            fallback=verdict.abstained,
            abstained=verdict.abstained,
            router_version=self._version,
            seconds=seconds,
            vector=features.vector,
        )
