"""Dead experts, twins and drift, against plain arithmetic and worlds whose truth is known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from routing_data import EXPERTS, prompts, with_expert, word_vectors
from taught_world import features, questions, world

from router.comparison import wilson
from router.drift import (
    LEAST_ROWS,
    Drift,
    Shift,
    discrepancy,
    gaussian,
    measure_drift,
    stability_index,
)
from router.gate import Gate
from router.health import Health, examine
from router.router import Router
from router.traffic_record import HOUR, Hour, Record, Sighting
from router.twins import correlations, cosines, find_pairs, prototypes

Array = npt.NDArray[np.float64]


def record(gate: Gate, experts: Sequence[str], texts: Sequence[str]) -> Record:
    """What a router would have noted of these requests, all of them sampled."""
    router = Router(gate, word_vectors, experts, "general")
    hour = Hour(5)
    for number, text in enumerate(texts):
        decision = router.route([("user", text)])
        hour.requests += 1
        hour.chosen.update(decision.chosen)
        chances = decision.ranking.chances.array
        hour.sample.append(
            Sighting(
                5 * HOUR + number,
                router.read([("user", text)]).vector.astype(np.float16),
                np.arange(len(chances), dtype=np.int16),
                chances.astype(np.float16),
            )
        )
    return Record(router.experts, [hour])


def health(texts: Sequence[str], gate: Gate | None = None, **more: str) -> Health:
    gate, experts = gate or world(), [*EXPERTS, *more]
    return examine([record(gate, experts, texts)], gate, experts, "general")


def texts(count: int, seed: int, *labels: str) -> list[str]:
    rows = prompts(count, seed)
    return [row.text for row in rows if not labels or row.labels in [(one,) for one in labels]]


def test_an_expert_that_nobody_asks_is_dead_and_the_bound_says_how_surely() -> None:
    found = health(texts(400, 31, "code", "general", "legal"))
    uses = {use.name: use for use in found.uses}
    assert [use.name for use in found.uses if use.dead] == ["multilingual"]
    share = uses["multilingual"].share
    # Wilson's upper bound of 0 in n is z² / (n + z²).
    assert share is not None
    assert share.high == pytest.approx(1.96**2 / (found.requests + 1.96**2), rel=1e-3)
    assert uses["code"].chosen > 70 and not uses["code"].dead


def test_an_expert_that_callers_name_is_not_dead_and_a_disabled_one_neither() -> None:
    hour = Hour(5, 100, Counter(general=90), Counter(legal=10))
    found = examine([Record(EXPERTS, [hour])], world(), EXPERTS, "general", disabled=("code",))
    uses = {use.name: use for use in found.uses}
    assert (uses["legal"].chosen, uses["legal"].named) == (0, 10)
    assert [use.name for use in found.uses if use.dead] == ["multilingual"]
    assert uses["code"].disabled


def test_records_of_several_routers_add_up() -> None:
    one = record(world(), EXPERTS, texts(100, 32))
    other = record(world(), EXPERTS, texts(60, 33))
    found = examine([one, other], world(), EXPERTS, "general")
    assert found.requests == found.sampled == 160
    alone = [examine([part], world(), EXPERTS, "general") for part in (one, other)]
    for place, use in enumerate(found.uses):
        assert use.chosen == sum(part.uses[place].chosen for part in alone)


def test_nothing_is_said_where_nothing_was_asked() -> None:
    found = examine([], world(), EXPERTS, "general")
    assert found.requests == found.sampled == 0
    assert not any(use.dead for use in found.uses)
    assert found.drift == Drift(None, None)
    assert all(pair.together is None and pair.correlation is None for pair in found.pairs)


def test_without_a_background_neither_likeness_nor_drift_is_told() -> None:
    from dataclasses import replace

    gate = replace(world(), background=None)
    found = examine([record(gate, EXPERTS, texts(80, 34))], gate, EXPERTS, "general")
    assert found.drift is None
    assert all(pair.cosine is None for pair in found.pairs)


def test_an_expert_taught_with_anothers_questions_is_its_twin() -> None:
    gate = with_expert(world(), "contracts", features(texts(400, 41, "legal")[:40]))
    found = health(texts(300, 35), gate, contracts="")
    first = found.pairs[0]
    assert {first.one, first.other} == {"legal", "contracts"}
    assert first.twins and first.cosine is not None and first.cosine > 0.9
    apart = with_expert(world(), "medical", features(questions("medical", 40)))
    found = health(texts(300, 35), apart, medical="")
    assert not any("medical" in (pair.one, pair.other) and pair.twins for pair in found.pairs)


def test_pairs_are_counted_one_by_one() -> None:
    dice = np.random.default_rng(1)
    names = [f"expert {number}" for number in range(5)]
    rows = dice.dirichlet([0.5] * 5, size=200)
    likeness = cosines(dice.normal(size=(5, 8)))
    found = find_pairs(names, rows, likeness, 100)
    assert len(found) == 10
    for pair in found:
        one, other = names.index(pair.one), names.index(pair.other)
        either = [row for row in rows if row[one] >= 0.15 or row[other] >= 0.15]
        both = [row for row in either if row[one] >= 0.15 and row[other] >= 0.15]
        assert pair.requests == len(either)
        assert pair.together == wilson(len(both), len(either))
        assert pair.correlation == pytest.approx(np.corrcoef(rows[:, one], rows[:, other])[0, 1])
        assert pair.cosine == pytest.approx(likeness[one, other])
    strength = [max(p.together.value if p.together else 0.0, p.cosine or -1.0) for p in found]
    assert strength == sorted(strength, reverse=True)


def test_a_probability_that_never_changes_has_no_correlation() -> None:
    rows = np.array([[0.5, 0.1, 0.4], [0.5, 0.3, 0.2], [0.5, 0.2, 0.3]])
    found = correlations(rows)
    assert np.isnan(found[0]).all() and found[1, 2] == pytest.approx(-1.0)


def test_prototypes_are_the_means_of_their_rows_seen_from_the_middle() -> None:
    gate = with_expert(world(), "medical", features(questions("medical", 40)))
    background = gate.known_background()
    vectors = background.vectors.astype(float)
    found = prototypes(gate)
    for place, label in enumerate(world().labels):
        weights = background.targets[:, place]
        mean = sum(w * v for w, v in zip(weights, vectors, strict=True)) / weights.sum()
        np.testing.assert_allclose(found[place], mean - vectors.mean(axis=0), atol=1e-6)
        assert gate.labels[place] == label
    own = word_vectors(questions("medical", 40)).mean(axis=0)
    np.testing.assert_allclose(found[4], own - vectors.mean(axis=0), atol=1e-5)


def test_the_stability_index_is_that_of_a_hand_computation() -> None:
    # Shares .25 and .75 against .5 and .5, each with half a count more.
    found = stability_index(np.array([24.5, 74.5]), np.array([49.5, 49.5]))
    expected = (0.25 - 0.5) * math.log(0.5) + (0.75 - 0.5) * math.log(1.5)
    assert float(found) == pytest.approx(expected)
    assert float(stability_index(np.array([7, 0]), np.array([0, 7]))) < math.inf


def test_the_discrepancy_is_that_of_sums_over_pairs() -> None:
    dice = np.random.default_rng(2)
    ours, theirs = dice.normal(size=(9, 3)), dice.normal(0.5, 1.0, size=(12, 3))
    rows = np.concatenate([ours, theirs])
    distances = [float(((a - b) ** 2).sum()) for i, a in enumerate(rows) for b in rows[i + 1 :]]
    width = float(np.median(distances))

    def kernel(a: Array, b: Array) -> float:
        return math.exp(-float(((a - b) ** 2).sum()) / width)

    within = sum(kernel(a, b) for i, a in enumerate(ours) for j, b in enumerate(ours) if i != j)
    beyond = sum(kernel(a, b) for i, a in enumerate(theirs) for j, b in enumerate(theirs) if i != j)
    across = sum(kernel(a, b) for a in ours for b in theirs)
    expected = within / (9 * 8) + beyond / (12 * 11) - 2 * across / (9 * 12)
    assert discrepancy(gaussian(rows), 9) == pytest.approx(expected)


def draw(
    dice: np.random.Generator, count: int, shares: Sequence[float], shift: float = 0.0
) -> tuple[Array, npt.NDArray[np.int64]]:
    """Rows around one middle for each leader, led in these shares."""
    leads = dice.choice(len(shares), count, p=shares)
    middles = np.eye(len(shares), 6) * 2.0
    return middles[leads] + dice.normal(size=(count, 6)) + shift, leads


EVEN = (0.25, 0.25, 0.25, 0.25)


def test_p_values_are_even_where_nothing_changed() -> None:
    mixes, contents = [], []
    for seed in range(60):
        dice = np.random.default_rng(seed)
        found = measure_drift(draw(dice, 60, EVEN), draw(dice, 120, EVEN), 4, seed)
        assert found.mix is not None and found.content is not None
        mixes.append(found.mix.p_value)
        contents.append(found.content.p_value)
    for values in (mixes, contents):
        # 60 even draws: five standard deviations for the mean, the binomial's for small ones.
        assert abs(np.mean(values) - 0.5) < 5 * 0.2887 / 60**0.5
        assert sum(value <= 0.05 for value in values) <= 10


def test_another_mix_alone_is_no_new_content() -> None:
    for seed in range(5):
        dice = np.random.default_rng(100 + seed)
        now, then = draw(dice, 400, (0.7, 0.1, 0.1, 0.1)), draw(dice, 600, EVEN)
        found = measure_drift(now, then, 4, seed)
        assert found.mix is not None and found.content is not None
        assert found.mix.value > 0.25 and found.mix.p_value <= 0.01
        assert found.content.p_value > 0.01
        assert found.drifted


def test_new_content_is_found_though_the_mix_is_as_before() -> None:
    for seed in range(5):
        dice = np.random.default_rng(200 + seed)
        now, then = draw(dice, 300, EVEN, shift=0.5), draw(dice, 600, EVEN)
        found = measure_drift(now, then, 4, seed)
        assert found.mix is not None and found.content is not None
        assert found.mix.value < 0.1
        assert found.content.p_value <= 0.01 and found.content.value > 0.0
        assert found.drifted


def test_few_rows_tell_nothing() -> None:
    dice = np.random.default_rng(3)
    few = draw(dice, LEAST_ROWS - 1, EVEN)
    assert measure_drift(few, draw(dice, 100, EVEN), 4) == Drift(None, None)
    # Nobody leads on both sides: there is nothing to compare like with like.
    ours, theirs = draw(dice, 50, (1.0, 0.0)), draw(dice, 50, (0.0, 1.0))
    found = measure_drift(ours, theirs, 2)
    assert found.mix is not None and found.content is None


def test_a_small_shift_of_the_mix_is_no_drift_however_sure() -> None:
    assert not Drift(Shift(0.05, 0.001, 9999), None).drifted
    assert not Drift(Shift(0.9, 0.2, 9999), None).drifted


def test_traffic_like_the_training_data_shows_no_drift_and_other_traffic_does() -> None:
    alike = health(texts(300, 51))
    assert alike.drift is not None and not alike.drift.drifted
    strange = health([*texts(200, 52), *questions("medical", 150), *questions("finance", 150)])
    assert strange.drift is not None and strange.drift.drifted
    assert strange.drift.content is not None and strange.drift.content.p_value <= 0.01
