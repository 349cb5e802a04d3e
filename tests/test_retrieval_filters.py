import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_retrieval_index import bag_of_words

from retrieval import Document, Index, InvalidQuery
from retrieval.filters import condition

ROWS: dict[str, dict[str, Any]] = {
    "a": {"lang": "de", "license": "MIT", "added": 100.0, "year": 2019, "public": True},
    "b": {"lang": "de", "license": "CC0-1.0", "added": 200.0, "year": 2021, "public": False},
    "c": {"lang": "en", "license": "MIT", "added": 300.0, "year": "2022", "team": "x' OR 1"},
    "d": {"lang": "", "license": "", "added": 400.0, "year": 2022.5},
}


@pytest.fixture
def index(tmp_path: Path) -> Index:
    made = Index(tmp_path, bag_of_words)
    made.add(
        "law", [Document(id, f"Title {id}", f"The rule on trees, {id}.") for id in [*ROWS, "e"]]
    )
    connection = sqlite3.connect(tmp_path / "law" / "collection.sqlite")
    for id, row in ROWS.items():
        metadata = {key: row[key] for key in ("year", "public", "team") if key in row}
        connection.execute(
            "UPDATE documents SET lang = ?, license = ?, added = ?, metadata = ? WHERE id = ?",
            (row["lang"], row["license"], row["added"], json.dumps(metadata), id),
        )
    connection.commit()
    connection.close()
    return made


def number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


CASES: list[tuple[dict[str, object], Callable[[dict[str, Any]], bool]]] = [
    ({"lang": "de"}, lambda r: r["lang"] == "de"),
    ({"lang": "de", "license": "MIT"}, lambda r: (r["lang"], r["license"]) == ("de", "MIT")),
    ({"license": ["MIT", "CC0-1.0"]}, lambda r: r["license"] in ("MIT", "CC0-1.0")),
    ({"license": {"not in": ["MIT"]}}, lambda r: r["license"] != "MIT"),
    ({"metadata.year": {">=": 2020}}, lambda r: number(r["year"]) and r["year"] >= 2020),
    ({"metadata.year": "2022"}, lambda r: r["year"] == "2022"),
    ({"metadata.year": {">": 2018, "<": 2020}}, lambda r: r["year"] == 2019),
    ({"metadata.public": True}, lambda r: r.get("public") is True),
    ({"metadata.public": {"!=": True}}, lambda r: r.get("public") is not True),
    ({"metadata.team": "x' OR 1"}, lambda r: "team" in r),
    ({"metadata.team": {"exists": False}}, lambda r: "team" not in r),
    ({"added": {">": 150, "<=": 300.0}}, lambda r: 150 < r["added"] <= 300),
    ({"document": ["a", "d"]}, lambda r: r["added"] in (100, 400)),
    ({"lang": {"exists": True}}, lambda r: bool(r["lang"])),
]


@pytest.mark.parametrize(("wanted", "holds"), CASES)
def test_only_what_meets_the_filter_is_found(
    index: Index, wanted: dict[str, object], holds: Callable[[dict[str, Any]], bool]
) -> None:
    # "e" has nothing but an id: it meets a filter only by what it lacks.
    bare = {"lang": "", "license": "", "added": 0, "year": None}
    expected = {id for id, row in {**ROWS, "e": bare}.items() if holds(row)}
    found = index.search("rule on trees", None, ["law"], 10, wanted)
    assert {hit.document_id for hit in found} == expected
    assert all(hit.bm25 > 0 for hit in found if len(expected) < 3)


def test_the_filter_acts_before_ranking(index: Index) -> None:
    index.add("law", [Document(f"n{n}", "Trees", "rule on trees trees trees") for n in range(200)])
    found = index.search("rule on trees", None, ["law"], 3, {"document": "d"})
    assert [hit.document_id for hit in found] == ["d"]


@pytest.mark.parametrize(
    ("wanted", "named"),
    [
        ({"language": "de"}, "'language'.*lang"),
        ({"metadata.": 1}, "metadata"),
        ({'metadata.a"b': 1}, "metadata.KEY"),
        ({"lang": 5}, "'lang' is compared with text"),
        ({"lang": None}, "'lang'"),
        ({"lang": {}}, "'lang' is empty"),
        ({"lang": []}, "list of values"),
        ({"lang": {"~": "de"}}, "'~'.*'lang'"),
        ({"added": "today"}, "'added' is compared with a number"),
        ({"added": True}, "'added' is compared with a number"),
        ({"metadata.year": {">": True}}, "'metadata.year'"),
        ({"metadata.year": {"exists": 1}}, "true or false"),
        ({"metadata.year": 2**70}, "too large"),
        ({"metadata.year": {"nested": {"a": 1}}}, "'nested'"),
        ({"lang": ["x"] * 65}, "64 values"),
        ({"lang": "\ud800"}, "Unicode"),
    ],
)
def test_a_filter_that_makes_no_sense_is_refused(wanted: dict[str, object], named: str) -> None:
    with pytest.raises(InvalidQuery, match=named):
        condition(wanted)


def test_values_never_become_part_of_the_statement() -> None:
    made = condition({"lang": "x'); DROP TABLE documents; --", "metadata.k": ["$", '"']})
    assert "DROP" not in made.sql
    assert made.sql.count("?") == len(made.values)
