"""Follows a registry from a running service: a new lineup is loaded aside and then takes over."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from router.cast import Cast
from router.counts import Counts
from router.features import Features
from router.gate import Gate
from router.lineup import ORIGIN, Lineup, VersionError
from router.router import Router
from router.versions import Registry

logger = logging.getLogger(__name__)

POLL_S = 1.0
RETRY_S = 30.0

_PROBE = (("user", "ready?"),)


class Follower:
    """The cast that a registry asks for, as far as it can be loaded.

    A thread of its own asks every `poll_s` seconds whether the lineup changed; requests only read
    `cast`. What cannot be loaded replaces nothing: it is logged, counted as `version_faults`, and
    tried again every `retry_s` seconds. `build` makes a router of a gate.

    Raises `VersionError` where not even version 0 can be loaded.
    """

    def __init__(
        self,
        registry: Registry,
        build: Callable[[Gate], Router],
        counts: Counts,
        *,
        poll_s: float = POLL_S,
        retry_s: float = RETRY_S,
    ) -> None:
        self._registry, self._build, self._counts = registry, build, counts
        self._poll_s, self._retry_s = poll_s, retry_s
        self._probe: Features | None = None
        self._retry_at: float | None = None
        self._told = ""
        self._stamp = registry.stamp()
        self.cast = self._first()
        self._stop = threading.Event()
        threading.Thread(target=self._run, name="router-versions", daemon=True).start()

    def stop(self) -> None:
        """Follow no longer."""
        self._stop.set()

    def poll(self) -> None:
        """Look once: load the lineup if it changed, or if something of it is to be tried again."""
        stamp = self._registry.stamp()
        due = self._retry_at is not None and time.monotonic() >= self._retry_at
        if stamp == self._stamp and not due:
            return
        if stamp is None:
            # A volume that went away says nothing about what should act.
            self._fault(f"{self._registry.folder}: the lineup is gone")
            return
        self._stamp, self._retry_at = stamp, None
        lineup = self._registry.lineup()
        current = self._sound(lineup.current)
        if current is not None:
            self.cast = self._around(current, lineup)
            logger.info("router version %s (%s) acts", lineup.current, current.version)

    def _run(self) -> None:
        while not self._stop.wait(self._poll_s):
            try:
                self.poll()
            except Exception as error:
                # Whatever broke: the cast goes on, and so does following.
                self._fault(str(error))

    def _first(self) -> Cast:
        """A damaged registry must not keep the service down: an older version stands in."""
        try:
            lineup = self._registry.lineup()
        except VersionError as error:
            self._fault(str(error))
            lineup = Lineup()
        current = self._sound(lineup.current)
        if current is not None:
            return self._around(current, lineup)
        before = self._sound(lineup.previous) if lineup.previous else None
        return Cast(before or self._router(ORIGIN))

    def _around(self, current: Router, lineup: Lineup) -> Cast:
        shadow = self._sound(lineup.shadow) if lineup.shadow else None
        canary = self._sound(lineup.canary) if lineup.canary else None
        return Cast(current, shadow, canary, lineup.share if canary else 0.0)

    def _sound(self, name: str) -> Router | None:
        try:
            return self._router(name)
        except Exception as error:
            # A gate may be broken in any way, and none may end what is in service.
            self._fault(f"{type(error).__name__}: {error}")
            return None

    def _router(self, name: str) -> Router:
        """A router that has decided once: what it would fail at, it fails at here."""
        router = self._build(self._registry.gate(name))
        self._probe = self._probe or router.read(_PROBE)
        router.decide(self._probe)
        return router

    def _fault(self, words: str) -> None:
        self._retry_at = time.monotonic() + self._retry_s
        self._counts.add("version_faults")
        if words != self._told:
            self._told = words
            logger.error("a version of the router cannot be used: %s", words)
