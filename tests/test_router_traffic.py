"""What a router notes of its requests: counts, a bounded sample, and files that are whole."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gate_folders import registry_in
from test_router_live import TEXTS, build, counted, live, said, until
from test_router_routing import word_vectors

from router.chances import Chances
from router.counts import Counts
from router.decision import Decision
from router.lineup import VersionError
from router.overrides import Overrides
from router.ranking import Ranking
from router.traffic import HOURS_COUNTED, HOURS_SAMPLED, MOST_FILES, Traffic
from router.traffic_record import (
    HOUR,
    KEPT,
    TRAFFIC_FOLDER,
    Record,
    read_records,
    write_record,
)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = 1_000_000 * HOUR + 5.0

    def __call__(self) -> float:
        return self.now


def decision(chosen: str, mark: float = 0.0, others: int = 2) -> Decision:
    names = (chosen, *(f"other {number}" for number in range(others)))
    shares = np.array([0.7, *(0.3 / others for _ in range(others))])
    roster = dict(sorted(zip(names, shares.tolist(), strict=True)))
    return Decision(
        candidates=Ranking(Chances.of(roster), {chosen: 1.0}),
        chosen=(chosen,),
        k=1,
        reason="",
        fallback=False,
        abstained=False,
        router_version="x",
        seconds=0.0,
        vector=np.array([mark, 1.0], dtype=np.float32),
    )


@pytest.fixture
def noting(tmp_path: Path) -> Callable[..., Traffic]:
    def make(clock: Clock | None = None, **settings: float) -> Traffic:
        return Traffic(tmp_path / "traffic", Counts(), clock=clock or Clock(), **settings)  # type: ignore[arg-type]

    return make


def test_every_request_is_counted_in_its_hour(noting: Callable[..., Traffic]) -> None:
    clock = Clock()
    traffic = noting(clock)
    for _ in range(3):
        traffic.add(decision("a"), named=False)
    clock.now += HOUR
    traffic.add(decision("a"), named=True)
    traffic.close()
    first, second = traffic.record().hours
    assert (first.number, first.requests, first.chosen) == (1_000_000, 3, Counter(a=3))
    assert (second.number, second.named, second.chosen) == (1_000_001, Counter(a=1), Counter())


def test_what_was_noted_comes_back_from_disk(
    noting: Callable[..., Traffic], tmp_path: Path
) -> None:
    clock = Clock()
    traffic = noting(clock)
    for number in range(20):
        clock.now += 600.0
        traffic.add(decision("a", mark=number / 32), named=number % 5 == 0)
    traffic.close()
    (found,) = read_records(tmp_path / "traffic")
    kept = traffic.record()
    assert found.names == kept.names == ("a", "other 0", "other 1")
    assert [(h.number, h.requests, h.chosen, h.named) for h in found.hours] == [
        (h.number, h.requests, h.chosen, h.named) for h in kept.hours
    ]
    assert [s.at for s in found.sample] == [s.at for s in kept.sample]
    marks = [float(s.vector[0]) for s in found.sample]
    assert sorted(marks) == [number / 32 for number in range(20)]
    expected = [[0.0, 0.7, 0.15]] * 20
    names = ["stranger", "a", "other 1"]
    np.testing.assert_allclose(found.probabilities(names), expected, atol=1e-3)


def test_a_window_begins_where_it_is_told_to(noting: Callable[..., Traffic]) -> None:
    clock = Clock()
    begin = clock.now
    traffic = noting(clock)
    for _ in range(4):
        traffic.add(decision("a"), named=False)
        clock.now += HOUR
    late = traffic.record().since(begin + 1.5 * HOUR)
    # The hour in which it begins counts whole; of the sample it is the moment.
    assert sum(hour.requests for hour in late.hours) == 3
    assert len(late.sample) == 2
    traffic.close()


def test_the_sample_of_an_hour_is_bounded_and_drawn_evenly(
    noting: Callable[..., Traffic],
) -> None:
    seen: Counter[int] = Counter()
    for _ in range(300):
        traffic = noting(rows=5)
        for number in range(40):
            traffic.add(decision("a", mark=float(number)), named=False)
        traffic.close()
        sample = traffic.record().sample
        assert len(sample) == 5
        seen.update(int(sighting.vector[0]) for sighting in sample)
    counts = np.array([seen[number] for number in range(40)])
    # 1,500 draws over 40 places; the chi-square of 39 degrees is below 72.1 in 999 of 1,000 cases.
    assert float(((counts - 37.5) ** 2 / 37.5).sum()) < 72.1


def test_without_rows_no_vector_is_kept(noting: Callable[..., Traffic], tmp_path: Path) -> None:
    traffic = noting(rows=0)
    traffic.add(decision("a"), named=False)
    traffic.close()
    (found,) = read_records(tmp_path / "traffic")
    assert found.sample == [] and found.hours[0].requests == 1


def test_old_hours_go(noting: Callable[..., Traffic]) -> None:
    clock = Clock()
    traffic = noting(clock)
    for _ in range(HOURS_COUNTED + 10):
        traffic.add(decision("a"), named=False)
        clock.now += HOUR
    found = traffic.record()
    assert len(found.hours) == HOURS_COUNTED
    assert len(found.sample) == HOURS_SAMPLED
    traffic.close()


def test_of_many_experts_the_most_probable_are_kept(noting: Callable[..., Traffic]) -> None:
    traffic = noting()
    traffic.add(decision("a", others=100), named=False)
    traffic.close()
    (sighting,) = traffic.record().sample
    assert len(sighting.places) == len(sighting.probabilities) == KEPT
    assert traffic.record().probabilities(["a"])[0, 0] == pytest.approx(0.7, abs=1e-3)


def test_other_experts_begin_a_new_sample(noting: Callable[..., Traffic]) -> None:
    traffic = noting()
    traffic.add(decision("a"), named=False)
    traffic.add(decision("b", others=3), named=False)
    traffic.close()
    found = traffic.record()
    assert found.names == ("b", "other 0", "other 1", "other 2")
    assert len(found.sample) == 1
    assert found.hours[0].chosen == Counter(a=1, b=1)


def test_a_clock_that_is_put_back_loses_nothing(
    noting: Callable[..., Traffic], tmp_path: Path
) -> None:
    clock = Clock()
    traffic = noting(clock)
    traffic.add(decision("a"), named=False)
    clock.now -= 3 * HOUR
    traffic.add(decision("a"), named=False)
    traffic.close()
    (found,) = read_records(tmp_path / "traffic")
    assert len(found.sample) == found.hours[0].requests == 2


def test_threads_lose_no_request(noting: Callable[..., Traffic]) -> None:
    traffic = noting(rows=10)

    def ask() -> None:
        for _ in range(200):
            traffic.add(decision("a"), named=False)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    traffic.close()
    (hour,) = traffic.record().hours
    assert hour.requests == hour.chosen["a"] == 800


def test_it_is_written_while_requests_come(noting: Callable[..., Traffic], tmp_path: Path) -> None:
    traffic = noting(flush_s=0.02)
    folder = tmp_path / "traffic"
    traffic.add(decision("a"), named=False)
    assert until(lambda: requests(folder) == 1)
    traffic.add(decision("a"), named=False)
    assert until(lambda: requests(folder) == 2)
    traffic.close()


def requests(folder: Path) -> int:
    return sum(hour.requests for record in read_records(folder) for hour in record.hours)


def test_files_of_others_are_bounded_and_the_oldest_go(tmp_path: Path) -> None:
    folder = tmp_path / "traffic"
    folder.mkdir()
    for number in range(MOST_FILES + 5):
        write_record(folder / f"old-{number:03}.safetensors", Record(("a",), []))
    traffic = Traffic(folder, Counts())
    traffic.add(decision("a"), named=False)
    traffic.close()
    names = {path.name for path in folder.glob("*.safetensors")}
    assert len(names) == MOST_FILES
    assert "old-000.safetensors" not in names and "old-036.safetensors" in names


def test_a_folder_that_cannot_be_written_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "traffic").write_text("a file where the folder should be")
    counts = Counts()
    traffic = Traffic(tmp_path / "traffic", counts)
    traffic.add(decision("a"), named=False)
    traffic.close()
    found = {count.name: count.value for count in counts.read()}
    assert found["chosen"] == 1 and found["traffic_faults"] >= 1


def test_a_file_that_is_no_record_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(b"nothing")
    with pytest.raises(VersionError, match=r"x\.safetensors: not a record of traffic"):
        list(read_records(tmp_path))


def test_no_half_written_file_is_read(tmp_path: Path) -> None:
    write_record(tmp_path / "a.safetensors", Record(("a",), []))
    (tmp_path / ".a.safetensors.new").write_bytes(b"half")
    assert len(list(read_records(tmp_path))) == 1


def test_a_service_notes_its_traffic_and_no_probe(tmp_path: Path) -> None:
    registry = registry_in(tmp_path)
    with live(registry) as router:
        for number, text in enumerate(TEXTS * 3):
            router.route(said(text), key=f"{number}")
        router.route(said("python"), Overrides(weights={"legal": 1.0}), key="forced")
        router.route(said("ready?"))
        expected = Counter(name for text in TEXTS * 3 for name in build_chosen(text))
        for name, count in expected.items():
            assert counted(router, "chosen", expert=name) == count
        assert counted(router, "named", expert="legal") == 1
    (record,) = read_records(registry.folder / TRAFFIC_FOLDER)
    chosen = sum((hour.chosen for hour in record.hours), Counter[str]())
    assert chosen == expected
    assert sum(hour.requests for hour in record.hours) == 3 * len(TEXTS) + 1
    vectors = {tuple(sighting.vector.tolist()) for sighting in record.sample}
    halves = word_vectors([*TEXTS]).astype(np.float16)
    assert vectors <= {tuple(row) for row in halves.tolist()}


def test_of_who_wants_nothing_stored_no_vector_is_kept(tmp_path: Path) -> None:
    registry = registry_in(tmp_path)
    with live(registry) as router:
        router.route(said("python"), key="a", keep=False)
        router.route(said("hola"), key="b")
    (record,) = read_records(registry.folder / TRAFFIC_FOLDER)
    assert sum(hour.requests for hour in record.hours) == 2
    (kept,) = record.sample
    np.testing.assert_array_equal(kept.vector, word_vectors(["hola"])[0].astype(np.float16))
    assert (registry.folder / TRAFFIC_FOLDER).stat().st_mode & 0o077 == 0


def test_vectors_go_in_time_although_no_request_comes(
    noting: Callable[..., Traffic], tmp_path: Path
) -> None:
    clock = Clock()
    traffic = noting(clock, flush_s=0.02)
    traffic.add(decision("a"), named=False)
    folder = tmp_path / "traffic"
    assert until(lambda: any(record.sample for record in read_records(folder)))
    clock.now += (HOURS_SAMPLED + 1) * HOUR
    assert until(lambda: not any(record.sample for record in read_records(folder)))
    assert requests(folder) == 1
    traffic.close()


def test_vectors_of_a_router_that_ended_go_when_another_begins(
    noting: Callable[..., Traffic], tmp_path: Path
) -> None:
    clock = Clock()
    first = noting(clock)
    first.add(decision("a"), named=False)
    first.close()
    folder = tmp_path / "traffic"
    (path,) = folder.glob("*.safetensors")
    os.utime(path, (clock.now, clock.now))
    clock.now += (HOURS_SAMPLED + 1) * HOUR
    second = noting(clock)
    second.add(decision("b"), named=False)
    second.close()
    assert requests(folder) == 2
    assert [len(record.sample) for record in read_records(folder)] == [0, 1]
    assert path.stat().st_mtime == clock.now - (HOURS_SAMPLED + 1) * HOUR


def build_chosen(text: str) -> tuple[str, ...]:
    from gate_folders import gate

    return build(gate()).route(said(text)).chosen
