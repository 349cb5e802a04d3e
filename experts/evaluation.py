"""How well each adapter predicts held-out answers of each domain: the loss matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from experts.adapters import Adapter
from experts.examples import Example
from experts.gated import GateHolder, gate_layers
from experts.invocation import spans
from experts.losses import row_losses, starts_of
from experts.lowrank import AdapterBank, Gate

BASE = "base"
_RESAMPLES = 10_000
_BLOCK = 500


class EvaluationError(ValueError):
    """What was asked cannot be measured; the message says why."""


@dataclass(frozen=True)
class Cell:
    """One adapter on one domain.

    `loss` is nats per response token; `change` is relative to the base model, with the ends of
    its 95 % interval from a paired bootstrap over rows (Efron and Tibshirani 1993).
    """

    model: str
    domain: str
    rows: int
    tokens: int
    loss: float
    change: float
    low: float
    high: float


def loss_matrix(
    model: Any,  # noqa: ANN401
    adapters: Sequence[Adapter],
    domains: Mapping[str, Sequence[Example]],
    *,
    batch_tokens: int = 1024,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda _label, _done, _total: None,
) -> list[Cell]:
    """Losses of the base and of every adapter on every domain, through the gated layers.

    An adapter that waits acts from the last occurrence of its invocation in each prompt on.

    `model` is a causal language model of transformers; it gets the gated layers here.

    Raises:
        EvaluationError: a domain has no rows, or an adapter bears the name of the base.
    """
    _check(adapters, domains)
    bank, holder = gate_layers(model)
    bank.load(adapters)
    names = [BASE, *bank.names]
    cells = []
    for domain, examples in domains.items():
        losses = {}
        for name in names:
            label = f"{name} on {domain}"
            gate = partial(_gate_batch, holder, bank, name)
            losses[name] = _by_row(model, examples, batch_tokens, gate, label, progress)
        holder.step = bank.step([])
        tokens = np.array([e.response_length for e in examples], dtype=np.float64)
        cells += [_cell(name, domain, losses[name], losses[BASE], tokens, seed) for name in names]
    return cells


def _check(adapters: Sequence[Adapter], domains: Mapping[str, Sequence[Example]]) -> None:
    if any(adapter.name == BASE for adapter in adapters):
        raise EvaluationError(f"{BASE!r} means the bare base model: give the adapter another name")
    empty = [name for name, examples in domains.items() if not examples]
    if empty:
        raise EvaluationError(
            f"no row of {', '.join(empty)} is left to measure: each needs a response, and a prompt "
            "that leaves room for it within the longest length"
        )


def _gate_batch(holder: GateHolder, bank: AdapterBank, name: str, batch: Sequence[Example]) -> None:
    gate: Gate = {} if name == BASE else {name: 1.0}
    starts = starts_of(batch, bank.invocation(name))
    if starts is None:
        holder.step = bank.step([gate])
    else:
        width = max(len(e.tokens) for e in batch)
        parts = [part for start in starts for part in spans(gate, {name: start}, 0, width)]
        holder.step = bank.step([g for g, _ in parts], [tokens for _, tokens in parts])


def _by_row(
    model: Any,  # noqa: ANN401
    examples: Sequence[Example],
    batch_tokens: int,
    on_start: Callable[[Sequence[Example]], None],
    label: str,
    progress: Callable[[str, int, int], None],
) -> npt.NDArray[np.float64]:
    found = row_losses(
        model, examples, batch_tokens, lambda d, t: progress(label, d, t), on_start=on_start
    )
    by_id = {id(example): loss for example, loss in found}
    return np.array([by_id[id(example)] for example in examples])


def _cell(
    name: str,
    domain: str,
    losses: npt.NDArray[np.float64],
    base: npt.NDArray[np.float64],
    tokens: npt.NDArray[np.float64],
    seed: int,
) -> Cell:
    changes = _resampled(losses, base, np.random.default_rng(seed))
    low, high = np.quantile(changes, [0.025, 0.975])
    return Cell(
        model=name,
        domain=domain,
        rows=len(losses),
        tokens=int(tokens.sum()),
        loss=float(losses.sum() / tokens.sum()),
        change=float(losses.sum() / base.sum() - 1),
        low=float(low),
        high=float(high),
    )


def _resampled(
    losses: npt.NDArray[np.float64], base: npt.NDArray[np.float64], rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    # In blocks, because all resamples of a large set at once would take gigabytes.
    changes = []
    for _ in range(_RESAMPLES // _BLOCK):
        picks = rng.integers(0, len(losses), size=(_BLOCK, len(losses)))
        changes.append(losses[picks].sum(axis=1) / base[picks].sum(axis=1) - 1)
    return np.concatenate(changes)
