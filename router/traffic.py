"""Takes note of a router's requests, within bounds, and writes it down now and then."""

from __future__ import annotations

import atexit
import logging
import os
import random
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from router.chances import largest
from router.counts import Counts
from router.decision import Decision
from router.features import Vector
from router.lineup import VersionError
from router.traffic_record import (
    HOUR,
    KEPT,
    NOT_READ,
    Hour,
    Record,
    Sighting,
    read_record,
    write_record,
)

logger = logging.getLogger(__name__)

HOURS_COUNTED = 31 * 24
HOURS_SAMPLED = 72
ROWS_PER_HOUR = 48
FLUSH_S = 60.0
MOST_FILES = 32

Read = Callable[[], Vector]


@dataclass(frozen=True, eq=False)
class _Unread:
    """A sighting in the sample of an hour, and what makes its vector."""

    hour: Hour
    sighting: Sighting
    read: Read


class Traffic:
    """The requests of one router; threads may share it.

    Counts are kept for `HOURS_COUNTED` hours. Of each of the last `HOURS_SAMPLED` hours a uniform
    sample of `rows` requests is kept as sentence vectors in half precision (Algorithm R, Vitter
    1985); with 0 rows none is. Every `flush_s` seconds a thread of its own reads what no gate has
    read, if it is sampled, and replaces its file in `folder`; when the first is written, those of
    other routers go, the oldest first, beyond `MOST_FILES`. What fails there is counted as
    `traffic_faults`.
    """

    def __init__(
        self,
        folder: Path,
        counts: Counts,
        *,
        rows: int = ROWS_PER_HOUR,
        flush_s: float = FLUSH_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._folder, self._counts, self._rows = folder, counts, rows
        self._flush_s, self._clock = flush_s, clock
        stem = f"{socket.gethostname()}-{os.getpid()}-{time.time_ns():x}"
        self._path = folder / f"{stem}.safetensors"
        self._names: tuple[str, ...] = ()
        self._hours: list[Hour] = []
        self._unread: list[_Unread] = []
        self._dice = random.Random()
        self._lock, self._over = threading.Lock(), threading.Event()
        self._thread: threading.Thread | None = None
        self._fresh = self._told = False

    def add(
        self, decision: Decision, *, named: bool, read: Read | None = None, sample: bool = True
    ) -> None:
        """Take note of a decision; `named` tells that the caller set the weights.

        `read` makes the sentence vector of one that was settled without; it is asked later, and
        only where the decision is sampled. Without `sample` it is counted alone.
        """
        now = self._clock()
        for expert in decision.chosen:
            self._counts.add("named" if named else "chosen", expert=expert)
        with self._lock:
            hour = self._note(decision, named, now)
            if sample:
                self._sample(hour, decision, now, read)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._run, name="router-traffic", daemon=True
                )
                self._thread.start()
                # A thread that runs the encoder while the interpreter ends would take it down.
                atexit.register(self.close)

    def record(self) -> Record:
        """What was noted so far, without the requests of the sample that are not read yet."""
        with self._lock:
            hours = [
                Hour(h.number, h.requests, h.chosen.copy(), h.named.copy(), _read(h.sample))
                for h in self._hours
            ]
            return Record(self._names, hours)

    def stop(self) -> None:
        """Take note no longer; what is not yet written is written."""
        self._over.set()

    def close(self) -> None:
        """Stop, and wait until all is written."""
        self.stop()
        if self._thread is not None:
            self._thread.join()

    def _note(self, decision: Decision, named: bool, now: float) -> Hour:
        names = decision.ranking.chances.roster.names
        if names != self._names:
            # The places of what was sampled before are those of other experts.
            self._names = names
            for hour in self._hours:
                hour.sample.clear()
        hour = self._hour(int(now // HOUR))
        hour.requests += 1
        (hour.named if named else hour.chosen).update(decision.chosen)
        self._fresh = True
        return hour

    def _sample(self, hour: Hour, decision: Decision, now: float, read: Read | None) -> None:
        hour.offered += 1
        place = len(hour.sample)
        if place == self._rows:
            place = self._dice.randrange(hour.offered)
        if place < self._rows:
            # A clock that was put back must not place it before its hour.
            at = max(now, hour.number * HOUR)
            sighting = _sighting(decision, at)
            hour.sample[place : place + 1] = [sighting]
            if read is not None and not len(sighting.vector):
                self._unread.append(_Unread(hour, sighting, read))

    def _hour(self, number: int) -> Hour:
        if not self._hours or self._hours[-1].number < number:
            self._hours.append(Hour(number))
            self._forget(number)
        return self._hours[-1]

    def _forget(self, number: int) -> None:
        """Let go what is too old in this hour."""
        self._hours = [h for h in self._hours if h.number > number - HOURS_COUNTED]
        for hour in self._hours:
            if hour.number <= number - HOURS_SAMPLED and hour.sample:
                hour.sample.clear()
                self._fresh = True

    def _run(self) -> None:
        self._make_room()
        while not self._over.wait(self._flush_s):
            self._flush()
        self._flush()
        atexit.unregister(self.close)

    def _flush(self) -> None:
        self._catch_up()
        with self._lock:
            # Also where no request came since: what is on disk is not to outlive its time.
            self._forget(int(self._clock() // HOUR))
            fresh, self._fresh = self._fresh, False
        if not fresh:
            return
        try:
            write_record(self._path, self.record())
        except OSError as error:
            self._fault(error)

    def _catch_up(self) -> None:
        """Read what is still in the sample. No request waits for it."""
        with self._lock:
            unread, self._unread = self._unread, []
        for one in unread:
            with self._lock:
                wanted = _place(one) is not None
            if wanted:
                self._finish(one)

    def _finish(self, one: _Unread) -> None:
        try:
            vector = one.read().astype(np.float16)
        except Exception as error:
            # An encoder may fail in any way; the sample is one row shorter then.
            self._fault(error)
            return
        with self._lock:
            place = _place(one)
            if place is not None:
                one.hour.sample[place] = replace(one.sighting, vector=vector)
                self._fresh = True

    def _make_room(self) -> None:
        try:
            # Not again later: a volume that went away is no folder to be made.
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._let_go()
            files = sorted(self._folder.glob("*.safetensors"), key=lambda p: p.stat().st_mtime_ns)
            for path in files[: max(0, len(files) - MOST_FILES + 1)]:
                path.unlink(missing_ok=True)
        except OSError as error:
            self._fault(error)

    def _let_go(self) -> None:
        """Take the sample out of files of routers that ended, once it has had its time."""
        ended = self._clock() - HOURS_SAMPLED * HOUR
        for path in self._folder.glob("*.safetensors"):
            written = path.stat().st_mtime
            if written < ended:
                try:
                    record = read_record(path)
                except (FileNotFoundError, VersionError) as error:
                    # Whoever reads the records is told of it.
                    logger.warning("%s", error)
                    continue
                if record.sample:
                    write_record(path, record.bare())
                    os.utime(path, (written, written))

    def _fault(self, error: Exception) -> None:
        self._counts.add("traffic_faults")
        if not self._told:
            self._told = True
            logger.error("the router's traffic cannot be kept: %s: %s", type(error).__name__, error)


def _read(sample: Sequence[Sighting]) -> list[Sighting]:
    return [sighting for sighting in sample if len(sighting.vector)]


def _place(unread: _Unread) -> int | None:
    """Where it stands in the sample; None where another request took its place."""
    sample = enumerate(unread.hour.sample)
    return next((place for place, one in sample if one is unread.sighting), None)


def _sighting(decision: Decision, now: float) -> Sighting:
    values = decision.ranking.chances.array
    places = largest(values, KEPT)
    return Sighting(
        at=now,
        vector=NOT_READ if decision.vector is None else decision.vector.astype(np.float16),
        places=np.array(places, dtype=np.int16),
        probabilities=values[places].astype(np.float16),
    )
