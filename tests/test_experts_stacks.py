"""Stacks of adapters that change under the steps: every row gets its own weighted sum, exactly."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

import pytest
import torch

from experts.adapters import Adapter, LoraWeight
from experts.lowrank import AdapterBank, Gate, StepGates, arrange
from experts.stacks import Bundle, Bundles, Group

GROUPS = [Group(("q", "k"), (6, 4)), Group(("down",), (5,))]
WIDTHS = {"q": (7, 6), "k": (7, 4), "down": (9, 5)}
INPUTS = {GROUPS[0]: 7, GROUPS[1]: 9}


def adapter(name: str, seed: int, ranks: Mapping[str, int]) -> Adapter:
    dice = torch.Generator().manual_seed(seed)

    def pair(module: str, rank: int) -> LoraWeight:
        inner, outer = WIDTHS[module]
        a = torch.randn(rank, inner, generator=dice)
        return LoraWeight(a, torch.randn(outer, rank, generator=dice), 0.5 + seed % 3)

    return Adapter(name, {module: pair(module, rank) for module, rank in ranks.items()})


def kind(number: int) -> dict[str, int]:
    kinds = [{"q": 2, "k": 2, "down": 2}, {"q": 2, "k": 2, "down": 2}, {"q": 1, "down": 3}]
    return kinds[number % 3]


def expected(
    group: Group, x: torch.Tensor, gates: Sequence[Gate], loaded: Mapping[str, Adapter]
) -> torch.Tensor:
    rows = []
    for vector, gate in zip(x, gates, strict=True):
        parts = []
        for module, width in zip(group.modules, group.widths, strict=True):
            total = torch.zeros(width)
            for name, weight in gate.items():
                pair = loaded[name].weights.get(module)
                if pair is not None:
                    total += weight * pair.scale * (pair.b @ (pair.a @ vector))
            parts.append(total)
        rows.append(torch.cat(parts))
    return torch.stack(rows)


class Step:
    """A step begun, and what its layers must give however late they run."""

    def __init__(
        self, bank: AdapterBank, gates: list[Gate], lengths: list[int], loaded: dict[str, Adapter]
    ) -> None:
        self.given: StepGates = bank.step(gates, lengths)
        wide = [gate for gate, length in zip(gates, lengths, strict=True) for _ in range(length)]
        self.inputs = {group: torch.randn(len(wide), INPUTS[group]) for group in GROUPS}
        self.truth = {g: expected(g, x, wide, loaded) for g, x in self.inputs.items()}

    def check(self) -> None:
        for group, x in self.inputs.items():
            y = torch.zeros_like(self.truth[group])
            self.given.add(group, x, y)
            torch.testing.assert_close(y, self.truth[group], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_rows_get_their_adapters_while_others_come_and_go(seed: int) -> None:
    torch.manual_seed(seed)
    dice, bank, loaded = random.Random(seed), AdapterBank(GROUPS, torch.zeros(1)), {}
    resting: list[Step] = []
    before: list[tuple[list[Gate], list[int]]] = []
    for turn in range(150):
        name = f"a{dice.randrange(24)}"
        if name in loaded and dice.random() < 0.5:
            bank.unload(name)
            del loaded[name]
        else:
            loaded[name] = adapter(name, 1000 * turn + seed, kind(dice.randrange(3)))
            bank.load([loaded[name]])
        if not loaded:
            continue
        gates = [some_gate(dice, list(loaded)) for _ in range(dice.choice([1, 2, 4, 9, 14]))]
        gates = [gates[n] for n in arrange(gates)]
        lengths = [dice.choice([1, 1, 3, 40]) for _ in gates]
        before = [past for past in before if all(gate.keys() <= loaded.keys() for gate in past[0])]
        if before and dice.random() < 0.4:
            gates, lengths = dice.choice(before)
        before = [*before[-4:], (gates, lengths)]
        step = Step(bank, gates, lengths, dict(loaded))
        step.check()
        if dice.random() < 0.3:
            resting.append(step)
        while len(resting) > 3 or (resting and dice.random() < 0.2):
            resting.pop(0).check()


def some_gate(dice: random.Random, names: list[str]) -> Gate:
    count = dice.choice([0, 1, 1, 1, 1, 3])
    return {name: dice.random() for name in dice.sample(names, min(count, len(names)))}


def test_a_changing_batch_copies_the_newcomer_only() -> None:
    loaded = {f"a{n}": adapter(f"a{n}", n, kind(0)) for n in range(12)}
    bundles = Bundles(GROUPS, torch.zeros(1), let_go=lambda: None)
    first = bundles.of(frozenset(f"a{n}" for n in range(6)), loaded)
    again = bundles.of(frozenset(f"a{n}" for n in (0, 1, 2, 3, 4, 9)), loaded)
    assert again is first
    assert again.names == {"a0", "a1", "a2", "a3", "a4", "a9"}


def test_what_a_step_still_reads_is_not_written_over() -> None:
    loaded = {f"a{n}": adapter(f"a{n}", n, kind(0)) for n in range(12)}
    bundles = Bundles(GROUPS, torch.zeros(1), let_go=lambda: None)
    first = bundles.of(frozenset(f"a{n}" for n in range(6)), loaded)
    reader = Reader()
    first.users.add(reader)
    assert bundles.of(frozenset(f"a{n}" for n in range(1, 7)), loaded) is not first
    assert first.names == {f"a{n}" for n in range(6)}


def test_remembered_steps_make_way_for_a_changed_batch() -> None:
    bank = AdapterBank(GROUPS, torch.zeros(1))
    bank.load([adapter(f"a{n}", n, kind(0)) for n in range(12)])
    bank.step([{f"a{n}": 1.0} for n in range(6)], [1] * 6)
    (first,) = bank._bundles._kept
    bank.step([{f"a{n}": 1.0} for n in (0, 1, 2, 3, 4, 9)], [1] * 6)
    assert bank._bundles._kept == [first]


class Reader:
    """Stands for a step that holds a bundle."""


def test_an_adapter_of_other_ranks_does_not_take_a_place_it_does_not_fit() -> None:
    loaded = {f"a{n}": adapter(f"a{n}", n, kind(0)) for n in range(6)}
    bundle = Bundle(list(loaded.values()), GROUPS, torch.zeros(1))
    other = adapter("other", 77, kind(2))
    assert not bundle.refill({"a0": loaded["a0"], "other": other})
    assert bundle.names == loaded.keys()


def test_a_single_adapter_is_read_alone() -> None:
    loaded = {f"a{n}": adapter(f"a{n}", n, kind(0)) for n in range(6)}
    bundles = Bundles(GROUPS, torch.zeros(1), let_go=lambda: None)
    bundles.of(frozenset(loaded), loaded)
    assert bundles.of(frozenset({"a3"}), loaded).places == ["a3"]
