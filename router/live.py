"""The router of a running service: it follows its versions, and compares them on live traffic."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from router.comparison_log import LOG_FOLDER, ComparisonLog
from router.counts import Count, Counts
from router.decision import Decision
from router.exploration import explore, may_explore
from router.follower import POLL_S, RETRY_S, Follower
from router.gate import Gate
from router.observer import Observer, Sight
from router.overrides import Overrides
from router.perusal import Perusal
from router.router import NO_OVERRIDES, Router
from router.situation import CALM, Situation
from router.traffic import ROWS_PER_HOUR, Traffic
from router.traffic_record import TRAFFIC_FOLDER
from router.versions import Registry


class LiveRouter:
    """Routes by the version that acts, and changes it without a pause; threads may share it.

    `build` makes a router of a gate. Pairs of decisions are logged in the registry's folder, and
    there it is noted how often experts are asked, with `sampled` sentence vectors an hour.
    `exploration` is the share of requests that are explored (`exploration.py`); `keep_features`
    puts what was read into every decision, for a log. Without `notes` nothing is counted, compared
    or kept: for one who looks at the decisions of a service without being a part of it.

    Where a first stage settles a request no encoder runs for it, but for what is compared and for
    the sample: those are read afterwards, by threads of their own. While there is exploration, the
    requests that may be explored are read by the gate, since their log is there to judge other
    versions by.
    Raises `VersionError` where not even version 0 can be loaded.
    """

    def __init__(
        self,
        registry: Registry,
        build: Callable[[Gate], Router],
        *,
        exploration: float = 0.0,
        keep_features: bool = False,
        poll_s: float = POLL_S,
        retry_s: float = RETRY_S,
        sampled: int = ROWS_PER_HOUR,
        notes: bool = True,
    ) -> None:
        self._exploration, self._keep_features = exploration, keep_features
        self._notes = notes
        self._counts = Counts()
        self._traffic = Traffic(registry.folder / TRAFFIC_FOLDER, self._counts, rows=sampled)
        self._observer = Observer(ComparisonLog(registry.folder / LOG_FOLDER), self._counts)
        self._follower = Follower(registry, build, self._counts, poll_s=poll_s, retry_s=retry_s)
        self._served: set[tuple[str, str]] = set()
        # Their threads know nothing of this object, so it goes when nobody holds it any more.
        weakref.finalize(self, self._follower.stop)
        weakref.finalize(self, self._observer.stop)
        weakref.finalize(self, self._traffic.stop)

    def route(
        self,
        messages: Sequence[tuple[str, str]],
        overrides: Overrides = NO_OVERRIDES,
        situation: Situation = CALM,
        key: str = "",
        *,
        keep: bool = True,
    ) -> Decision:
        """Return the decision on a conversation, as `Router.route` does.

        `key` names the session or the request: a canary's share and exploration are drawn by it. A
        request without one is no traffic (a probe): the current version decides, and nothing is
        counted, explored or kept. Without `keep` nothing that was read goes into the sample.
        """
        started = time.perf_counter()
        cast = self._follower.cast
        role, router = cast.acting(key)
        perusal = Perusal(router.skim(messages), overrides, situation, router)
        explores = self._exploration > 0.0 and may_explore(overrides, situation)
        # A probe is there to find an encoder that fails.
        decision = perusal.decide(router, started, whole=explores or not key)
        if key and self._notes:
            self._counts.add("decisions", role=role, version=decision.router_version)
            # Weights that the caller set say nothing about a version.
            if overrides.weights is None:
                judge = partial(perusal.decide, whole=explores)
                self._observer.offer(Sight(cast, role, decision, judge))
        if key and explores:
            decision = explore(decision, self._exploration, key)
        if key and self._notes:
            named = overrides.weights is not None
            self._traffic.add(decision, named=named, read=perusal.vector, sample=keep)
            if self._keep_features:
                decision = replace(decision, features=perusal.kept(decision))
        return decision

    @property
    def version(self) -> str:
        """The hash of the version that acts, but for a canary's share."""
        return self._follower.cast.current.version

    def counts(self) -> list[Count]:
        """What was counted since the start, and the versions in service.

        `serving` is 1 for each role and version in service, 0 for those that were before. The
        others: `decisions`, `chosen`, `named`, `compared`, `same_lead`, `same_set`,
        `divergence_nats`, `unseen`, `shadow_failures`, `log_faults`, `traffic_faults`,
        `version_faults`.
        """
        roles = set(self._follower.cast.roles())
        self._served |= roles
        serving = [
            Count("serving", {"role": role, "version": version}, float((role, version) in roles))
            for role, version in sorted(self._served)
        ]
        return [*serving, *self._counts.read()]

    def close(self) -> None:
        """Follow no longer, and wait until every comparison is counted and all is written."""
        self._follower.stop()
        self._observer.close()
        self._traffic.close()
