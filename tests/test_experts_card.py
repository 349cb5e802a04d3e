"""The licence that the data leaves an adapter, and the card that tells of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from experts.adapters import EMBEDDED, embedded_adapters
from experts.card import (
    OTHER,
    adapter_license,
    license_terms,
    restricted_licenses,
    write_card,
)
from experts.examples import Example, Row
from experts.training import TrainingReport

REPORT = TrainingReport(3, 120, 9, 60.4, 2.0, 1.5, {"rank": 8, "seed": 5})


def under(*licenses: str) -> list[Example]:
    return [
        Example(Row(str(n), "p", "r", f"source {n}", text), (1, 2), 1)
        for n, text in enumerate(licenses)
    ]


@pytest.mark.parametrize(
    ("licenses", "expected"),
    [
        (("MIT", "Apache-2.0"), "Apache-2.0"),
        (("MIT", "CC-BY-4.0"), "CC-BY-4.0"),
        (("CC BY 4.0", "MIT"), "CC-BY-4.0"),
        (("CC-BY-4.0", "CC-BY-SA-3.0", "MIT"), "CC-BY-SA-4.0"),
        (("MIT", "cc by-sa 4.0"), "CC-BY-SA-4.0"),
        (("MIT", "CC-BY-SA-4.0", "CC-BY-NC-4.0"), "other"),
        (("MIT", ""), "other"),
    ],
)
def test_share_alike_wins_over_attribution_over_permissive(
    licenses: tuple[str, ...], expected: str
) -> None:
    assert adapter_license(under(*licenses)) == expected


def test_the_card_tells_command_losses_data_and_licence(tmp_path: Path) -> None:
    write_card(
        tmp_path,
        name="legal",
        base="smollm2-135m-instruct",
        command="collegium train expert --name legal --data rows.jsonl",
        examples=under("CC-BY-4.0", "CC-BY-SA-4.0", "MIT"),
        report=REPORT,
    )
    card = (tmp_path / "README.md").read_text()
    for part in (
        "base_model: smollm2-135m-instruct\nlibrary_name: peft\nlicense: cc-by-sa-4.0\n",
        "collegium train expert --name legal --data rows.jsonl",
        "| 1.5000 (-25.0%) |",
        "| source 1 | CC-BY-SA-4.0 | 1 |",
        "| seed | 5 |",
    ):
        assert part in card
    notice = (tmp_path / "LICENSE").read_text()
    assert "https://creativecommons.org/licenses/by-sa/4.0/legalcode" in notice
    assert "- source 0 (CC-BY-4.0)\n- source 1 (CC-BY-SA-4.0)\n- source 2 (MIT)\n" in notice


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("MIT", "Apache-2.0"),
        ("MIT License", "Apache-2.0"),
        ("Apache 2.0", "Apache-2.0"),
        ("BSD-3-Clause OR Apache-2.0", "Apache-2.0"),
        ("CC0-1.0", "Apache-2.0"),
        ("public domain text; package MIT", "Apache-2.0"),
        ("US-Government-Work (public domain, 17 U.S.C. 105)", "Apache-2.0"),
        ("CC-BY-3.0", "CC-BY-4.0"),
        ("cc_by 4.0", "CC-BY-4.0"),
        ("MIT AND CC-BY-4.0", "CC-BY-4.0"),
        ("CC-BY-SA-3.0-DE", "CC-BY-SA-4.0"),
        ("CC-BY-4.0; CC-BY-SA-2.5", "CC-BY-SA-4.0"),
    ],
)
def test_known_terms_are_told_apart(text: str, expected: str) -> None:
    assert license_terms(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "CC-BY-NC-4.0",
        "CC BY-NC-SA 4.0",
        "CC-BY-ND-4.0",
        "cc-by-nc-nd-3.0",
        "CC-BY-4.0 (non-commercial use only)",
        "CC-BY-SA-4.0, NoDerivatives",
        "MIT (research only)",
        "GPL-3.0-or-later",
        "LGPL-2.1",
        "AGPL-3.0-only",
        "Artistic-1.0-Perl OR GPL-1.0-or-later; code examples public domain",
        "Debian-FAQ copyleft (verbatim and modified copies under the same notice)",
        "CC-BY-SA-1.0",
        "CC-BY-SA-4.0-but-not-quite",
        "permission granted",
        "permitted",
        "MIT; whatever",
        "",
        " ",
    ],
)
def test_restricted_and_unknown_terms_leave_no_licence(text: str) -> None:
    assert license_terms(text) == OTHER


def test_the_restricted_licences_are_counted() -> None:
    data = under("MIT", "GPL-3.0", "", "GPL-3.0", "CC-BY-4.0")
    assert restricted_licenses(data) == {"GPL-3.0": 2, "unnamed": 1}
    assert restricted_licenses(under("MIT", "CC-BY-SA-3.0")) == {}


def test_a_card_of_restricted_data_claims_no_licence_and_names_the_terms(tmp_path: Path) -> None:
    write_card(
        tmp_path,
        name="legal",
        base="b",
        command="c",
        examples=under("CC-BY-SA-4.0", "CC-BY-NC-4.0", "GPL-3.0", "GPL-3.0", "a | b"),
        report=REPORT,
    )
    card, notice = ((tmp_path / name).read_text() for name in ("README.md", "LICENSE"))
    assert "\nlicense: other\n" in card
    for text in (card.partition("## Licence")[2], notice):
        assert "No licence is granted for these weights." in text
        assert "\n- CC-BY-NC-4.0 (1 rows)\n- GPL-3.0 (2 rows)\n- a \\| b (1 rows)\n" in text
        assert "Apache" not in text and "licensed under" not in text
        assert "creativecommons.org" not in text
    assert "| source 4 | a \\| b | 1 |" in card
    assert "- source 2 (GPL-3.0)\n" in notice


@pytest.mark.parametrize("name", embedded_adapters())
def test_the_cards_of_the_embedded_adapters_bear_the_licence_of_their_data(name: str) -> None:
    card = (EMBEDDED / name / "README.md").read_text()
    table = card.partition("| source | licence | rows |")[2].partition("\n## ")[0]
    data = re.findall(r"^\| .+ \| (.+) \| \d+ \|$", table, re.M)
    assert len(data) >= 6
    expected = adapter_license(under(*data))
    assert f"\nlicense: {expected.lower()}\n" in card
    assert f"({expected})." in (EMBEDDED / name / "LICENSE").read_text()
