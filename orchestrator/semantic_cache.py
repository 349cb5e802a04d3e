"""Kept answers by meaning: follows the file of answers, and learns from what is compared there."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from orchestrator.answer_rows import Lesson, Vector
from orchestrator.answer_store import AnswerStore
from orchestrator.cache_config import SemanticCacheConfig
from orchestrator.hit_policy import HitPolicy, Verdict
from orchestrator.likeness import Kin

_TENANTS, _KINS = 64, 256


@dataclass
class _Pupil:
    """What was learnt for one tenant, up to the comparison of id `last`."""

    policy: HitPolicy
    last: int = 0


class SemanticCache:
    """Says which kept answer serves a question that is put in other words; not for several threads.

    Vectors and comparisons are held in memory, of so many tenants and kins that it stays bounded.

    Raises:
        sqlite3.Error, OSError: the file cannot be used.
    """

    def __init__(
        self, store: AnswerStore, settings: SemanticCacheConfig, draw: Callable[[], float]
    ) -> None:
        self._store, self._settings, self._draw = store, settings, draw
        self._pupils: OrderedDict[str, _Pupil] = OrderedDict()
        self._kins: OrderedDict[tuple[str, str], Kin] = OrderedDict()

    def consider(self, kin: str, tenant: str, vector: Vector) -> Verdict | None:
        """What is to be done with a question by its unit vector [d]; None where none is like it."""
        pupil = self._pupil(tenant)
        return pupil.policy.decide(self._kin(kin, tenant).likeness(vector))

    def learn(self, verdict: Verdict, kin: str, tenant: str, *, same: bool) -> None:
        """Keep what the comparison that a verdict asked for has shown."""
        likeness = verdict.likeness
        features = likeness.features()
        lesson = Lesson(kin, likeness.sense, features, same)
        self._store.learn(lesson, tenant)

    def forget(self) -> None:
        """Let go of all that is held in memory; it is read anew."""
        self._pupils.clear()
        self._kins.clear()

    def _pupil(self, tenant: str) -> _Pupil:
        pupil = self._pupils.setdefault(tenant, _Pupil(HitPolicy(self._settings, self._draw)))
        self._pupils.move_to_end(tenant)
        if len(self._pupils) > _TENANTS:
            self._pupils.popitem(last=False)
        begins = pupil.last == 0
        for lesson in self._store.lessons(tenant, pupil.last):
            pupil.last = lesson.id
            pupil.policy.learn(lesson.features, same=lesson.same)
            held = self._kins.get((tenant, lesson.kin))
            if held is not None:
                held.note(lesson.sense, same=lesson.same)
        if begins:
            pupil.policy.settle()
        return pupil

    def _kin(self, kin: str, tenant: str) -> Kin:
        held = self._kins.get((tenant, kin))
        if held is None:
            held = self._kins[tenant, kin] = Kin()
            for sense, same in self._store.tally(kin, tenant):
                held.note(sense, same=same)
        self._kins.move_to_end((tenant, kin))
        if len(self._kins) > _KINS:
            self._kins.popitem(last=False)
        ids, new = self._store.relatives(kin, tenant, held.ids)
        held.retain(set(ids))
        for relative in new:
            held.add(relative.id, relative.vector, relative.sense, relative.agreed)
        return held
