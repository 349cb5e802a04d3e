"""Adapters on disk, a few of them resident: loaded while others decode, evicted by last use."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from experts.adapters import Adapter, AdapterError


@dataclass
class ShelfCounters:
    """What happened on the shelf since it was made."""

    hits: int = 0
    loads: int = 0
    evictions: int = 0


class AdapterShelf:
    """Which adapters are resident. The engine's thread calls it; loading has a thread of its own.

    Args:
        load: reads an adapter by name; AdapterError if it cannot be used.
        capacity: adapters that may be resident.
        pinned: names that are never evicted; they count.
        notify: called from the loading thread when there is something to `collect`.
    """

    def __init__(
        self,
        load: Callable[[str], Adapter],
        *,
        capacity: int,
        pinned: Iterable[str] = (),
        notify: Callable[[], None] = lambda: None,
    ) -> None:
        self.capacity, self.pinned, self.notify = capacity, frozenset(pinned), notify
        self.counters = ShelfCounters()
        self._load = load
        self._resident: OrderedDict[str, None] = OrderedDict()
        self._held: Counter[str] = Counter()
        self._next: frozenset[str] = self.pinned
        self._loading: dict[str, Future[Adapter]] = {}
        self._failed: dict[str, AdapterError] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="adapters")

    @classmethod
    def of(cls, adapters: Collection[str]) -> AdapterShelf:
        """A shelf of adapters that are loaded and stay."""

        def load(name: str) -> Adapter:
            raise AdapterError(f"there is no adapter {name!r}")

        shelf = cls(load, capacity=max(1, len(adapters)))
        for name in adapters:
            shelf.adopt(name)
        return shelf

    @property
    def resident(self) -> list[str]:
        """Names of the resident adapters, least recently used first."""
        return list(self._resident)

    def adopt(self, name: str) -> None:
        """An adapter is resident that was loaded elsewhere."""
        self._resident[name] = None

    def want(self, turns: Iterable[Collection[str]]) -> None:
        """Begin to load what the next jobs need, in the order of their turns, as far as it fits."""
        fits = self.pinned | self._held.keys()
        for names in turns:
            if len(fits | set(names)) > self.capacity:
                break
            fits |= set(names)
        for name in fits - self._resident.keys() - self._loading.keys() - self._failed.keys():
            future = self._pool.submit(self._load, name)
            self._loading[name] = future
            future.add_done_callback(lambda _: self.notify())
        self._next = frozenset(fits)

    def collect(self) -> tuple[list[Adapter], list[str]]:
        """What was loaded meanwhile, and the names that have to go for it."""
        loaded = []
        for name in [name for name, future in self._loading.items() if future.done()]:
            future = self._loading.pop(name)
            error = future.exception()
            if error is None:
                loaded.append(future.result())
                self._resident[name] = None
                self.counters.loads += 1
            elif isinstance(error, AdapterError):
                self._failed[name] = error
            else:
                raise error
        over = max(0, len(self._resident) - self.capacity)
        # The pinned and the held are among the next.
        evicted = [name for name in self._resident if name not in self._next][:over]
        for name in evicted:
            del self._resident[name]
        self.counters.evictions += len(evicted)
        return loaded, evicted

    def ready(self, names: Collection[str]) -> bool:
        """Whether a job with these adapters can run now.

        Raises:
            AdapterError: one of them cannot be loaded; the next request tries again.
        """
        for name in names:
            if name in self._failed:
                raise self._failed.pop(name)
        return all(name in self._resident for name in names)

    def hold(self, names: Collection[str]) -> None:
        """A job that needs these resident adapters starts."""
        for name in names:
            self._held[name] += 1
            self._resident.move_to_end(name)
        self.counters.hits += len(names)

    def release(self, names: Collection[str]) -> None:
        """That job is over."""
        self._held.subtract(names)
        self._held = +self._held

    def close(self) -> None:
        """End the loading thread."""
        self._pool.shutdown(wait=False, cancel_futures=True)
