import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import numpy.typing as npt
import pytest

from retrieval import Document, Index, VectorFile, VectorPlan
from retrieval.errors import StorageFailed
from retrieval.vector_file import Kind, MappedVectors
from retrieval.vector_keeper import KEPT

DIMENSIONS = 32
REPOSITORY = Path(__file__).parent.parent
FLAT = VectorPlan(recent=50, flat=10_000, threads=1)
SCALAR = VectorPlan(recent=50, flat=100, threads=1)
PRODUCT = VectorPlan(recent=50, flat=100, scalar=200, recall=0.9, threads=1)
RANDOM = np.random.default_rng(5)
TABLE = RANDOM.standard_normal((40, DIMENSIONS))[RANDOM.integers(40, size=3000)]
TABLE = (TABLE + 0.6 * RANDOM.standard_normal(TABLE.shape)).astype(np.float32)
TABLE /= np.linalg.norm(TABLE, axis=1, keepdims=True)


def by_number(texts: Sequence[str]) -> npt.NDArray[np.float32]:
    """Looks the vector up by the number at a text's end."""
    rows = [int(end) if (end := text.split()[-1]).isdigit() else 0 for text in texts]
    return TABLE[rows]


def numbered(numbers: range | list[int]) -> list[Document]:
    return [Document(f"d{n}", "", f"number {n}") for n in numbers]


PREPARED: dict[int, Path] = {}


@pytest.fixture(autouse=True, scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Collections of several sizes, written once: every document is a write to disk of its own."""
    for count in (40, 600, 1200):
        PREPARED[count] = tmp_path_factory.mktemp("prepared") / "numbers"
        never = VectorPlan(recent=10_000)
        Index(PREPARED[count].parent, by_number, plan=never).add("numbers", numbered(range(count)))


def opened(folder: Path, plan: VectorPlan, count: int = 600) -> Index:
    shutil.copytree(PREPARED[count], folder / "numbers")
    index = Index(folder, by_number, plan=plan)
    if count > plan.recent:
        index.refresh("numbers")
    return index


def best(query: npt.NDArray[np.float32], among: Sequence[int], count: int = 10) -> list[str]:
    rows = np.array(among)
    return [f"d{n}" for n in rows[np.argsort(-(TABLE[rows] @ query), kind="stable")[:count]]]


def found(index: Index, query: npt.NDArray[np.float32], count: int = 10) -> list[str]:
    # No word of the text occurs, so that only the vectors rank.
    return [hit.document_id for hit in index.search("nothing", query, ["numbers"], count)]


def recall(index: Index, among: Sequence[int], queries: int = 30) -> float:
    hits = [
        len(set(found(index, query)) & set(best(query, among))) / 10 for query in TABLE[-queries:]
    ]
    return float(np.mean(hits))


def file_of(index: Index) -> VectorFile:
    file = index.vector_file("numbers")
    assert file is not None
    return file


def test_a_small_collection_needs_no_vector_file(tmp_path: Path) -> None:
    index = opened(tmp_path, FLAT, 40)
    assert index.vector_file("numbers") is None
    assert recall(index, range(40)) == 1.0


def test_a_flat_file_finds_what_brute_force_finds(tmp_path: Path) -> None:
    index = opened(tmp_path, FLAT)
    assert (file_of(index).kind, file_of(index).count) == (Kind.FLAT, 600)
    for query in TABLE[-20:]:
        hits = index.search("nothing", query, ["numbers"], 10)
        assert [hit.document_id for hit in hits] == best(query, range(600))
        exact = [float(TABLE[int(hit.document_id[1:])] @ query) for hit in hits]
        assert [hit.similarity for hit in hits] == pytest.approx(exact, abs=1e-5)


@pytest.mark.parametrize(("plan", "kind"), [(SCALAR, Kind.SCALAR), (PRODUCT, Kind.PRODUCT)])
def test_large_collections_get_lists_with_the_recall_that_was_asked(
    tmp_path: Path, plan: VectorPlan, kind: Kind
) -> None:
    index = opened(tmp_path, plan, 1200)
    file = file_of(index)
    assert file.kind is kind
    assert 0 < file.probes <= file.lists < 1200
    assert plan.recall <= file.recall <= 1.0
    assert recall(index, range(1200)) >= plan.recall - 0.05
    hit = index.search("nothing", TABLE[7], ["numbers"], 1)[0]
    assert (hit.document_id, hit.similarity) == ("d7", pytest.approx(1.0, abs=1e-5))


def test_where_codes_are_too_coarse_finer_ones_are_taken(tmp_path: Path) -> None:
    index = opened(tmp_path, replace(PRODUCT, recall=1.01), 600)
    file = file_of(index)
    assert (file.kind, file.probes) == (Kind.SCALAR, file.lists)


@pytest.mark.parametrize("plan", [FLAT, SCALAR])
def test_what_was_added_and_removed_since_is_honoured(tmp_path: Path, plan: VectorPlan) -> None:
    index = opened(tmp_path, plan)
    before = file_of(index).name
    index.add("numbers", numbered(range(600, 640)))
    for n in range(0, 620, 10):
        index.remove("numbers", f"d{n}")
    index.settle()
    kept = [n for n in range(640) if n >= 620 or n % 10]
    assert file_of(index).name == before
    assert recall(index, kept) >= (1.0 if plan is FLAT else 0.95)
    gone = {f"d{n}" for n in range(0, 620, 10)}
    for query in TABLE[0:620:10]:
        assert not gone & set(found(index, query))
    again = Index(tmp_path, by_number, plan=plan)
    assert found(again, TABLE[3]) == found(index, TABLE[3])


def test_changed_texts_are_found_at_their_new_place(tmp_path: Path) -> None:
    index = opened(tmp_path, FLAT)
    index.add("numbers", [Document("d5", "", "number 700")])
    assert found(index, TABLE[700], 1) == ["d5"]
    assert "d5" not in found(index, TABLE[5], 1)


def test_many_removals_make_a_new_file(tmp_path: Path) -> None:
    index = opened(tmp_path, FLAT)
    for n in range(130):
        index.remove("numbers", f"d{n}")
    index.settle()
    assert file_of(index).count < 480
    assert recall(index, range(130, 600)) == 1.0


@pytest.mark.parametrize("plan", [FLAT, SCALAR])
def test_a_filter_keeps_the_recall(
    tmp_path: Path, plan: VectorPlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = opened(tmp_path, plan, 1200)
    index.add("numbers", numbered(range(1200, 1230)))
    wholes: list[tuple[dict[str, object], list[int]]] = [
        ({"document": {"!=": "d9"}}, [n for n in range(1230) if n != 9]),
        ({"document": {"<": "d200"}}, [n for n in range(1230) if f"d{n}" < "d200"]),
        ({"document": ["d3", "d1210"]}, [3, 1210]),
    ]
    # Compared one by one as small parts are, then by the index with a bitmap.
    for few in (4096, 1):
        monkeypatch.setattr("retrieval.vectors.COMPARED_AT_ONCE", few)
        for wanted, among in wholes:
            hits = 0
            for query in TABLE[:15]:
                found = index.search("nothing", query, ["numbers"], 10, wanted)
                names = {hit.document_id for hit in found}
                assert names <= {f"d{n}" for n in among}
                hits += len(names & set(best(query, among)))
            assert hits >= 0.95 * 15 * min(10, len(among))


def test_replicas_map_the_file_and_do_not_copy_it(tmp_path: Path) -> None:
    index = opened(tmp_path, FLAT)
    assert found(index, TABLE[0], 1) == ["d0"]
    maps = Path("/proc/self/maps").read_text(encoding="utf-8")
    assert str(tmp_path / "numbers" / file_of(index).name) in maps


@pytest.mark.parametrize("harm", ["removed", "cut", "scrambled"])
def test_a_missing_or_damaged_file_costs_no_recall_and_is_made_anew(
    tmp_path: Path, harm: str
) -> None:
    index = opened(tmp_path, FLAT)
    old = file_of(index)
    index.close()
    path = tmp_path / "numbers" / old.name
    content = path.read_bytes()
    path.unlink()
    if harm == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif harm == "scrambled":
        path.write_bytes(content[:-600] + bytes(600))
    again = Index(tmp_path, by_number, plan=FLAT)
    assert recall(again, range(600)) == 1.0
    again.settle()
    assert file_of(again).name != old.name
    assert recall(again, range(600)) == 1.0


def test_searches_during_a_swap_never_fail_and_lose_no_recall(tmp_path: Path) -> None:
    index = opened(tmp_path, SCALAR)
    index.refresh("numbers")
    reader = Index(tmp_path, by_number, plan=SCALAR)
    floor = recall(reader, range(600))
    assert floor >= 0.95
    seen: set[str] = set()
    worst: list[float] = []
    failures: list[Exception] = []
    done = threading.Event()

    def search() -> None:
        while not done.is_set():
            try:
                worst.append(recall(reader, range(600), 5))
                seen.add(file_of(reader).name)
            except Exception as error:
                failures.append(error)
                return

    searching = threading.Thread(target=search)
    searching.start()
    for _ in range(6):
        index.refresh("numbers")
    done.set()
    searching.join()
    assert not failures
    assert len(seen) > 1
    assert min(worst) >= 0.8
    assert np.mean(worst) >= floor - 0.05
    assert recall(reader, range(600)) >= 0.95
    assert len(list((tmp_path / "numbers").glob("vectors-*"))) == KEPT


def test_what_is_written_while_a_file_is_made_is_not_lost(tmp_path: Path) -> None:
    index = opened(tmp_path, FLAT)
    making = threading.Thread(target=index.refresh, args=("numbers",))
    making.start()
    other = Index(tmp_path, by_number, plan=FLAT)
    for n in range(600, 640):
        other.add("numbers", numbered([n]))
        other.remove("numbers", f"d{n - 600}")
    making.join()
    assert recall(index, range(40, 640)) == 1.0
    assert recall(Index(tmp_path, by_number, plan=FLAT), range(40, 640)) == 1.0


def test_two_processes_do_not_make_the_same_file(tmp_path: Path) -> None:
    from filelock import FileLock

    index = opened(tmp_path, FLAT)
    with FileLock(tmp_path / ".numbers.vectors.lock"):
        assert Index(tmp_path, by_number, plan=FLAT).refresh("numbers") is None
    assert index.refresh("numbers") is not None


BUILDER = """
import sys
from pathlib import Path
from retrieval import Index
from test_retrieval_vectors import FLAT, by_number

index = Index(Path(sys.argv[1]), by_number, plan=FLAT)
while True:
    index.refresh("numbers")
    print("made", flush=True)
"""


def test_a_kill_while_a_file_is_made_leaves_the_collection_whole(tmp_path: Path) -> None:
    opened(tmp_path, FLAT).close()
    for rounds in (1, 2, 3):
        builder = subprocess.Popen(
            [sys.executable, "-c", BUILDER, str(tmp_path)],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'tests'}"},
        )
        assert builder.stdout is not None
        for _ in range(rounds):
            assert builder.stdout.readline() == "made\n"
        os.kill(builder.pid, signal.SIGKILL)
        builder.communicate()
        index = Index(tmp_path, by_number, plan=FLAT)
        assert recall(index, range(600), 5) == 1.0
        index.refresh("numbers")
        assert len(list((tmp_path / "numbers").glob("vectors-*"))) <= KEPT
        index.close()


def test_a_collection_that_nobody_wrote_since_is_searched(tmp_path: Path) -> None:
    # Files of earlier versions have no notes and no list of what was removed.
    import sqlite3

    opened(tmp_path, FLAT, 40).close()
    connection = sqlite3.connect(tmp_path / "numbers" / "collection.sqlite")
    connection.executescript("DROP TRIGGER note_removed; DROP TABLE notes; DROP TABLE removed")
    connection.close()
    index = Index(tmp_path, by_number, plan=FLAT)
    assert recall(index, range(40)) == 1.0
    index.remove("numbers", "d3")
    assert recall(index, [n for n in range(40) if n != 3]) == 1.0


def test_a_reader_that_missed_removals_starts_over(tmp_path: Path) -> None:
    import sqlite3

    index = opened(tmp_path, FLAT)
    assert recall(index, range(600), 3) == 1.0
    for n in range(30):
        index.remove("numbers", f"d{n}")
    connection = sqlite3.connect(tmp_path / "numbers" / "collection.sqlite")
    connection.execute("DELETE FROM removed WHERE number < 25")
    connection.commit()
    connection.close()
    assert recall(index, range(30, 600)) == 1.0
    assert recall(Index(tmp_path, by_number, plan=FLAT), range(30, 600)) == 1.0


def test_approximate_similarities_are_refined_by_exact_vectors(tmp_path: Path) -> None:
    index = opened(tmp_path, PRODUCT, 1200)
    mapped = MappedVectors(tmp_path / "numbers", file_of(index))
    rough = dict(mapped.search(TABLE[0], 10, None, 1.0))
    hits = index.search("nothing", TABLE[0], ["numbers"], 5)
    exact = [float(TABLE[int(hit.document_id[1:])] @ TABLE[0]) for hit in hits]
    assert [hit.similarity for hit in hits] == pytest.approx(exact, abs=1e-5)
    assert len(rough) > 10


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
def test_a_disk_that_is_full_is_told_without_a_traceback_of_faiss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index, write = opened(tmp_path, FLAT), faiss.write_index
    monkeypatch.setattr(
        "retrieval.vector_build.faiss.write_index", lambda made, _path: write(made, "/dev/full")
    )
    with pytest.raises(StorageFailed, match="cannot be written"):
        index.refresh("numbers")
