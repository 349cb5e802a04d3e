"""`collegium router rows` and `estimate`: what an operator gets out of the log of decisions."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from click.testing import CliRunner, Result
from gate_folders import BY, EXPERTS, gate, saved
from logged_rows import row
from safetensors.numpy import load_file
from test_router_routing import word_vectors

from orchestrator.cli.root import cli
from orchestrator.config import Config
from orchestrator.decision_log import Bounds, DecisionLog, log_file
from orchestrator.lessons import learn
from orchestrator.registry import open_registry
from router.dataset import read_prompts
from router.exploration import explore
from router.features import FEATURE_VERSION
from router.logged_decision import LoggedDecision, Opinion, Read, draw_of, logged_probabilities
from router.overrides import Overrides
from router.replay import Unplayable, reads_nothing, replay
from router.router import Router
from router.situation import Situation

TEXTS = ["python", "contract", "hola", "python contract", "banana", "hola python", "code python"]


@dataclass(frozen=True)
class Place:
    """A configuration with a registry and a log of its own."""

    folder: Path

    def run(self, *arguments: str) -> Result:
        command = ["router", *arguments, "--config", str(self.folder / "my.yaml")]
        return CliRunner().invoke(cli, command)

    def done(self, *arguments: str) -> str:
        found = self.run(*arguments)
        assert found.exit_code == 0, found.output
        return found.output

    def refused(self, *arguments: str) -> str:
        found = self.run(*arguments)
        assert found.exit_code != 0, found.output
        assert isinstance(found.exception, SystemExit), found.exception
        return found.output

    def config(self) -> Config:
        return Config.load(self.folder / "my.yaml")

    def keep(self, rows: Sequence[LoggedDecision]) -> None:
        log = DecisionLog(log_file(self.config().feedback), Bounds(100_000, 1e12))
        with log.transaction() as writing:
            for one in rows:
                writing.add(one)
                if one.opinion is not None:
                    writing.rate(one.id, one.tenant, one.opinion)
        log.close()

    def written(self, name: str) -> list[dict[str, Any]]:
        lines = (self.folder / name).read_text(encoding="utf-8").splitlines()
        return [json.loads(line) for line in lines]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr("orchestrator.cli.console.out.width", 240)
    saved(tmp_path / "origin")
    expert = {"model": "base", "adapter": "x"}
    body = {
        "models": {"base": {"source": "x"}},
        "encoder": {"source": "words"},
        "experts": {"general": {"model": "base"}, **dict.fromkeys(EXPERTS[1:], expert)},
        "router": {"weights": "origin", "versions": "versions"},
        "feedback": {"directory": "feedback"},
    }
    (tmp_path / "my.yaml").write_text(yaml.safe_dump(body))
    return Place(tmp_path)


def corrected(number: int, text: str | None, expert: str, **changes: Any) -> LoggedDecision:  # noqa: ANN401
    return row(number, text=text, opinion=Opinion(None, expert, "c", 1.0), **changes)


UNSURE = {"code": 0.5, "legal": 0.4, "general": 0.1}


def test_corrected_and_doubtful_decisions_become_rows(place: Place) -> None:
    place.keep(
        [
            corrected(1, "Is it legal?", "legal"),
            row(2, text="Sure and unrated"),
            row(3, text="Unsure", probabilities=UNSURE),
            row(4, -0.5, text="Sure, and bad"),
            row(5, 0.9, text="Sure, and good"),
            row(6, 1.0, text="Unsure, and good", probabilities=UNSURE),
        ]
    )
    target = place.folder / "rows.jsonl"
    told = place.done("rows", "--out", str(target))
    assert f"{target}: 1 rows with a domain" in told
    assert "rows.to-label.jsonl: 3 rows to be labelled" in told
    (ready,) = place.written("rows.jsonl")
    assert (ready["prompt"], ready["domain"], ready["decision_id"]) == (
        "Is it legal?",
        "legal",
        "dec-1",
    )
    assert ready["at"] == datetime.fromtimestamp(1_000_001.0, UTC).isoformat(timespec="seconds")
    open_rows = place.written("rows.to-label.jsonl")
    assert [one["prompt"] for one in open_rows] == ["Unsure", "Sure, and bad", "Unsure, and good"]
    assert {one["domain"] for one in open_rows} == {None}
    assert open_rows[0]["candidates"] == UNSURE
    assert [one["score"] for one in open_rows] == [None, -0.5, 1.0]


def test_labels_that_were_filled_in_by_hand_stay(place: Place) -> None:
    place.keep([row(n, text=f"Unsure {n}", probabilities=UNSURE) for n in range(3)])
    target = place.folder / "rows.jsonl"
    place.done("rows", "--out", str(target))
    labelled = place.written("rows.to-label.jsonl")
    labelled[1]["domain"] = "legal"
    labelled.append({**labelled[0], "decision_id": "pruned since", "domain": "code"})
    other = place.folder / "rows.to-label.jsonl"
    other.write_text("".join(json.dumps(one) + "\n" for one in labelled))
    place.done("rows", "--out", str(target))
    found = {one["decision_id"]: one["domain"] for one in place.written("rows.to-label.jsonl")}
    assert found == {"dec-0": None, "dec-1": "legal", "dec-2": None, "pruned since": "code"}


def test_rows_are_what_training_reads(place: Place) -> None:
    place.keep([corrected(n, f"prompt number {n}", EXPERTS[n % 4]) for n in range(8)])
    place.done("rows", "--out", str(place.folder / "rows.jsonl"))
    found = list(read_prompts([place.folder / "rows.jsonl"]))
    assert [(one.text, one.labels) for one in found] == [
        (f"prompt number {n}", (EXPERTS[n % 4],)) for n in range(8)
    ]
    assert {one.source for one in found} == {"feedback"}


def test_the_share_that_is_doubtful_is_set_by_below(place: Place) -> None:
    place.keep([row(1, text="a", probabilities=UNSURE), row(2, text="b")])
    for below, count in (("0.4", 0), ("0.6", 1), ("0.71", 2)):
        place.done("rows", "--out", str(place.folder / "rows.jsonl"), "--below", below)
        assert len(place.written("rows.to-label.jsonl")) == count


def test_decisions_without_text_are_counted_and_it_is_said_how_to_keep_it(place: Place) -> None:
    place.keep([corrected(1, None, "legal"), row(2, -1.0), corrected(3, "x", "code")])
    told = place.done("rows", "--out", str(place.folder / "rows.jsonl"))
    assert "2 more have no text" in told and "feedback.keep_text: true" in told
    assert len(place.written("rows.jsonl")) == 1


def test_of_equal_prompts_the_latest_correction_counts(place: Place) -> None:
    lessons = learn(
        [
            corrected(1, "Same prompt", "legal"),
            corrected(2, "same  PROMPT!", "code"),
            row(3, -1.0, text="Same prompt"),
            row(4, -1.0, text="Other"),
            row(5, -0.5, text="Other"),
        ],
        0.6,
    )
    assert [one.id for one in lessons.corrected] == ["dec-2"]
    assert [one.id for one in lessons.doubtful] == ["dec-5"]


def test_rows_can_be_those_of_a_tenant_and_a_time(place: Place) -> None:
    now = time.time()
    ages = {"a": 3600.0, "b": 86_400.0 * 3, "c": 86_400.0 * 30}
    made = [corrected(n, text, "code", at=now - age) for n, (text, age) in enumerate(ages.items())]
    place.keep([*made, corrected(9, "d", "code", at=now, tenant="other")])

    def prompts(*options: str) -> set[str]:
        place.done("rows", "--out", str(place.folder / "rows.jsonl"), *options)
        return {one["prompt"] for one in place.written("rows.jsonl")}

    assert prompts() == {"a", "b", "c", "d"}
    assert prompts("--since", "2h") == {"a", "d"}
    assert prompts("--since", "1w") == {"a", "b", "d"}
    day = datetime.fromtimestamp(now - 86_400.0 * 10, UTC).date().isoformat()
    assert prompts("--since", day) == {"a", "b", "d"}
    assert prompts("--tenant", "other") == {"d"}
    assert "neither a time" in place.refused("rows", "--out", "x", "--since", "yesterday")


def read_of(text: str, **changes: Any) -> Read:  # noqa: ANN401
    router = Router(gate(), word_vectors, EXPERTS, "general")
    features = router.read([("user", text)]).joined().astype(np.float16)
    fields = {"version": FEATURE_VERSION, "encoder": "words", "dimensions": 384, "said": len(text)}
    return Read.of(features, **{**fields, **changes})


def test_features_can_be_learned_from_without_text(place: Place) -> None:
    reads = [read_of("python"), read_of("contract")]
    place.keep(
        [
            corrected(1, None, "code", read=reads[0]),
            corrected(2, None, "legal", read=reads[1]),
            corrected(3, None, "legal", read=read_of("hola", version="another")),
            corrected(4, None, "legal"),
        ]
    )
    target = place.folder / "corrected.safetensors"
    told = place.done("rows", "--out", str(place.folder / "r.jsonl"), "--features", str(target))
    assert "features of 2 corrected decisions" in told
    found = load_file(target)
    wanted = np.vstack([np.atleast_2d(read.features()) for read in reads])
    np.testing.assert_array_equal(found["features"], wanted)
    assert found["starts"].tolist() == [0, len(np.atleast_2d(reads[0].features()))]
    # The head of a safetensors file is JSON behind its length.
    raw = target.read_bytes()
    head = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    assert json.loads(head["domains"]) == ["code", "legal"]
    assert head["version"] == FEATURE_VERSION


def test_without_a_log_it_is_said_how_one_begins(place: Place) -> None:
    for words in (["rows", "--out", "x"], ["estimate", "0"]):
        assert "feedback.enabled: true" in place.refused(*words)


def traffic(count: int, rate: float) -> list[LoggedDecision]:
    """Decisions of version 0 on mixed texts in turn, explored, and scored by their worth."""
    router = Router(gate(), word_vectors, EXPERTS, "general")
    decided = {text: router.route([("user", text)]) for text in MIXED}
    rows = []
    for number in range(count):
        text = MIXED[number % len(MIXED)]
        decision = decided[text]
        if rate:
            decision = explore(decision, rate, f"key {number}")
        rows.append(
            row(
                number,
                worth(text, decision.chosen),
                decision.weights(),
                draw_of(decision),
                probabilities=logged_probabilities(decision),
                read=read_of(text),
            )
        )
    return rows


MIXED = ["python contract", "hola python", "contract", "hola", "banana"]


def worth(text: str, chosen: Sequence[str]) -> float:
    """The other expert alone is better than with code; code alone is bad; the rest is fair."""
    if "python" not in text:
        return 0.3 if len(chosen) == 1 and chosen != ("code",) else -0.5
    if set(chosen) == {"code"}:
        return -0.5
    return 0.1 if "code" in chosen else 0.9


def test_a_version_is_estimated_near_what_it_would_have_scored(place: Place) -> None:
    name = open_registry(place.config()).add(saved(place.folder / "new", -30.0), BY).name
    other = Router(gate(-30.0), word_vectors, EXPERTS, "general")
    truth = float(np.mean([worth(t, other.route([("user", t)]).chosen) for t in MIXED]))
    mine = Router(gate(), word_vectors, EXPERTS, "general")
    own = float(np.mean([worth(t, mine.route([("user", t)]).chosen) for t in MIXED]))
    assert truth > own + 0.2
    place.keep(traffic(1500, 0.5))
    told = json.loads(place.done("estimate", name, "--json", "--resamples", "200"))
    assert told["hash"] == gate(-30.0).version
    found = told["appraisal"]
    assert found["scored"] == found["random"] == 1500
    assert found["doubly_robust"]["low"] <= truth <= found["doubly_robust"]["high"]
    assert found["gain"]["low"] > 0.1
    same = json.loads(place.done("estimate", "0", "--json", "--resamples", "200"))["appraisal"]
    assert same["doubly_robust"]["value"] == pytest.approx(own, abs=0.1)
    shown = place.done("estimate", name, "--resamples", "50")
    for words in ("doubly robust", "self-normalised", "replay", "1500 decisions with a score"):
        assert words in shown


def test_without_exploration_the_estimate_is_a_replay_and_says_so(place: Place) -> None:
    place.keep(traffic(70, 0.0))
    shown = place.done("estimate", "0", "--resamples", "50")
    assert "0 of them with chance in force" in shown
    assert "warning: nothing was left to chance" in shown
    found = json.loads(place.done("estimate", "0", "--json"))["appraisal"]
    assert found["agreeing"] == 1.0
    assert found["replay"]["value"] == pytest.approx(found["logged"]["value"])
    assert found["doubly_robust"] is None


def test_rows_that_cannot_be_replayed_are_counted_by_their_reason(place: Place) -> None:
    whole = traffic(7, 0.0)
    changed = [
        replace(whole[0], overrides=Overrides(weights={"code": 1.0})),
        replace(whole[1], read=None),
        replace(whole[2], read=read_of("hola", version="another")),
        replace(whole[3], read=read_of("hola", encoder="another")),
        replace(whole[6], stood_in=True),
        replace(whole[4], overrides=Overrides(experts=("gone",))),
        whole[5],
    ]
    place.keep(changed)
    found = json.loads(place.done("estimate", "0", "--json"))
    assert found["appraisal"]["scored"] == 1
    assert sorted(found["left_out"].values()) == [1, 1, 1, 1, 1, 1]
    assert "Left out: 1: " in place.done("estimate", "0")


def test_nothing_to_estimate_from_is_said(place: Place) -> None:
    place.keep([row(1)])
    assert "no decision with a score" in place.refused("estimate", "0")
    assert "there is no version" in place.refused("estimate", "7")
    assert "cannot name a version" in place.refused("estimate", "../x")


@pytest.mark.parametrize(
    ("overrides", "situation"),
    [
        (Overrides(), Situation()),
        (Overrides(top_k=1), Situation()),
        (Overrides(experts=("legal", "general")), Situation()),
        (Overrides(preferences={"legal": 1.0}, min_confidence=0.1), Situation()),
        (Overrides(), Situation(previous={"multilingual": 1.0})),
        (Overrides(max_cost=1.0), Situation(costs={"code": 2.0})),
        (Overrides(), Situation(waits={"code": 9.0}, seconds_left=1.0)),
    ],
)
def test_a_replay_is_the_decision_of_then(overrides: Overrides, situation: Situation) -> None:
    router = Router(gate(), word_vectors, EXPERTS, "general")
    blind = Router(gate(), reads_nothing, EXPERTS, "general")
    for text in TEXTS:
        made = router.route([("user", text)], overrides, situation)
        kept = row(1, overrides=overrides, situation=situation, read=read_of(text))
        assert set(replay(blind, kept)) == set(made.chosen), text


def test_a_replay_encodes_nothing() -> None:
    blind = Router(gate(), reads_nothing, EXPERTS, "general")
    with pytest.raises(Unplayable):
        blind.route([("user", "x")])
