"""Rows of many sub-domains are dealt into parts that share nothing, the same way every time."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.split import (
    PARTS,
    Deal,
    Limits,
    deal,
    part_file,
    read_lessons,
    read_table,
    write_deal,
)
from benchmarks.sub_domains import SUB_DOMAINS, Source
from experts.examples import Row, read_rows

TABLE: Mapping[str, Sequence[Source]] = {
    "shelf-en": (Source("goods", "shelf (en)", r"^(item)-[a-z]{2}-(\d+)-"),),
    "shelf-de": (Source("goods", "shelf (de)", r"^(item)-[a-z]{2}-(\d+)-"),),
    "tales": (Source("words", "tale"),),
}
LIMITS = Limits(tokens=400, held_out=10, gate_rows=15, prompt_tokens=12, row_tokens=20, fewest=4)


def words(row: Row) -> tuple[int, int]:
    return len(row.prompt.split()), len(row.response.split())


def goods(count: int = 120) -> list[dict[str, str]]:
    """Each item asked about twice in two languages: four rows of one group."""
    return [
        {
            "id": f"item-{lang}-{number}-{turn}",
            "prompt": f"{lang}: where is item {number} seen {turn} times",
            "response": f"on shelf {number} beside the window of the other room",
            "source": f"shelf ({lang})",
            "license": "MIT",
            "lang": lang,
        }
        for lang in ("en", "de")
        for number in range(count // 2)
        for turn in (1, 2)
    ]


def tales(count: int = 100) -> list[dict[str, str]]:
    return [
        {
            "id": f"tale-{number}",
            "prompt": f"tell me of the fox number {number}",
            "response": f"the fox {number} ran over the hill and was not seen again",
            "source": "tale of a fox",
            "license": "MIT",
        }
        for number in range(count)
    ]


def write(data: Path, **files: Sequence[Mapping[str, str]]) -> Path:
    (data / "train").mkdir(parents=True, exist_ok=True)
    for name, rows in files.items():
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (data / "train" / f"{name}.jsonl").write_text(lines)
    return data


def dealt(data: Path, limits: Limits = LIMITS) -> Deal:
    return deal(read_lessons(data, TABLE, words, limits), limits)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path, goods=goods(), words=tales())


def item(row: Row) -> str:
    found = re.match(r"item-..-(\d+)", row.id)
    return found[1] if found else row.id


def test_no_prompt_is_in_two_parts(data: Path) -> None:
    found = dealt(data)
    assert set(found.shares) == set(TABLE)
    ids = [
        row.id for share in found.shares.values() for part in PARTS for row in getattr(share, part)
    ]
    assert len(ids) == len(set(ids)) > 100


def test_nothing_about_a_held_out_item_is_taught_in_any_language(data: Path) -> None:
    shares = dealt(data).shares.values()
    held = {item(row) for share in shares for row in share.held_out}
    taught = {item(row) for share in shares for row in (*share.adapter, *share.gate)}
    assert held
    assert not held & taught


def test_no_adapter_has_seen_an_item_that_is_kept_for_the_gate(data: Path) -> None:
    for share in dealt(data).shares.values():
        assert not {item(row) for row in share.adapter} & {item(row) for row in share.gate}


def test_the_deal_is_the_same_whatever_the_order_of_the_lines(data: Path) -> None:
    first = dealt(data)
    write(data, goods=goods()[::-1], words=tales()[::-1])
    assert dealt(data) == first


def test_another_seed_deals_otherwise(data: Path) -> None:
    other = dealt(data, replace(LIMITS, seed=1))
    for name, share in dealt(data).shares.items():
        assert share.held_out != other.shares[name].held_out


def test_the_limits_are_kept(data: Path) -> None:
    for share in dealt(data).shares.values():
        assert len(share.held_out) == LIMITS.held_out
        assert len(share.gate) <= LIMITS.gate_rows
        spent = sum(min(sum(words(row)), LIMITS.row_tokens) for row in share.adapter)
        assert share.tokens == spent
        # The last group, of two rows at most, is the one that reached it.
        assert LIMITS.tokens <= spent < LIMITS.tokens + 2 * LIMITS.row_tokens


def test_a_prompt_that_comes_again_is_dealt_once(data: Path) -> None:
    again = [
        {**row, "id": f"{row['id']}-again", "prompt": row["prompt"].upper() + "!"}
        for row in tales()
    ]
    write(data, words=[*tales(), *again])
    share = dealt(data).shares["tales"]
    rows = [*share.adapter, *share.gate, *share.held_out]
    assert not [row.id for row in rows if row.id.endswith("-again")]


def test_a_prompt_too_long_is_left_out(data: Path) -> None:
    long = [
        {**row, "id": f"long-{n}", "prompt": f"{row['prompt']} {'far ' * 20}{n}"}
        for n, row in enumerate(tales())
    ]
    write(data, words=[*tales(), *long])
    share = dealt(data).shares["tales"]
    rows = [*share.adapter, *share.gate, *share.held_out]
    assert not [row.id for row in rows if row.id.startswith("long-")]


def test_a_sub_domain_with_too_little_is_left_out_by_name(data: Path) -> None:
    write(data, words=tales(12))
    found = dealt(data)
    assert found.left_out == {"tales": 12}
    assert set(found.shares) == {"shelf-en", "shelf-de"}


def test_one_large_group_does_not_fill_an_adapter(data: Path) -> None:
    crowd = [
        {**row, "id": f"item-en-7-{n}", "source": "shelf (en)", "lang": "en"}
        for n, row in enumerate(tales(90))
    ]
    write(data, goods=[*goods(), *crowd], words=tales()[90:] + tales(300)[100:])
    shares = (dealt(data, replace(LIMITS, seed=n)).shares["shelf-en"] for n in range(100))
    of_crowd = next(
        some for share in shares if (some := [row for row in share.adapter if item(row) == "7"])
    )
    assert sum(sum(words(row)) for row in of_crowd) < LIMITS.tokens / 10 + LIMITS.row_tokens


def test_what_is_written_is_read_back_with_its_label(data: Path, tmp_path: Path) -> None:
    found, folder = dealt(data), tmp_path / "split"
    write_deal(folder, found, LIMITS, "stamp")
    table = read_table(folder)
    assert table["stamp"] == "stamp"
    assert table["sub_domains"] == {name: share.counts() for name, share in found.shares.items()}
    for name, share in found.shares.items():
        for part in PARTS:
            path = part_file(folder, name, part)
            assert tuple(read_rows([path])) == getattr(share, part)
            lines = path.read_text(encoding="utf-8").splitlines()
            assert {json.loads(line)["domain"] for line in lines} <= {name}


def test_no_row_is_of_two_sub_domains() -> None:
    begins = [(s.file, s.begins) for sources in SUB_DOMAINS.values() for s in sources]
    clashes = [
        (one, other)
        for number, one in enumerate(begins)
        for other in begins[number + 1 :]
        if one[0] == other[0] and (one[1].startswith(other[1]) or other[1].startswith(one[1]))
    ]
    assert clashes == []
    assert len(SUB_DOMAINS) >= 20


@pytest.mark.parametrize(
    ("name", "ids"),
    [
        ("commands", ("tldr-pacdiff-0", "tldr-pacdiff-1")),
        ("help-de", ("gnome-de-color-why", "gnome-de-color-why")),
        ("javascript-ru", ("jsq-ru-83", "jsq-it-83")),
        ("regulations", ("cfpb-1070-22-d", "cfpb-1070-22-h")),
        ("translate-zh", ("xquad-tr-en-zh-57274b", "xquad-tr-zh-en-57274b")),
    ],
)
def test_rows_of_one_page_are_one_group(name: str, ids: tuple[str, str]) -> None:
    (source, *_) = SUB_DOMAINS[name]
    groups = {source.group_of(Row(id, "What is it?", "This.")) for id in ids}
    assert len(groups) == 1
    assert groups.isdisjoint(ids)


def test_a_page_and_its_title_to_translate_are_one_group() -> None:
    page, title = SUB_DOMAINS["help-de"][0], SUB_DOMAINS["translate-de"][1]
    assert page.group_of(Row("gnome-de-files-copy", "Wie?", "So.")) == title.group_of(
        Row("gnome-tr-en-de-files-copy", "Translate into German: How?", "Wie?")
    )


def test_questions_about_one_rule_or_clause_are_one_group() -> None:
    (rules,), (clauses,) = SUB_DOMAINS["rules"], SUB_DOMAINS["contracts"]
    asked = [f"Rule: Pay in May.\n\n{more}Question: May I?" for more in ("", "Situation: I am.\n")]
    assert len({rules.group_of(Row("r", prompt, "Yes")) for prompt in asked}) == 1
    assert rules.group_of(Row("r", asked[0], "Yes")) != "r"
    two = [f"{what}?\n\nClause: It ends in May." for what in ("Is it long", "Is it short")]
    assert len({clauses.group_of(Row("c", what, "No")) for what in two}) == 1
