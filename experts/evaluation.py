"""How well each adapter predicts held-out answers of each domain: the loss matrix."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from experts.adapters import Adapter
from experts.examples import Example
from experts.gated import AdapterBank
from experts.training import row_losses

BASE = "base"
_RESAMPLES = 10_000


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

    `model` is a causal language model of transformers; it gets the gated layers here.
    """
    bank = AdapterBank(model)
    bank.load(adapters)
    names = [BASE, *bank.names]
    cells = []
    for domain, examples in domains.items():
        losses = {}
        for name in names:
            # One gate of length 1 stretches over every token of every row.
            gate = {} if name == BASE else {name: 1.0}
            bank.gates.set([gate], [1], next(model.parameters()))
            label = f"{name} on {domain}"
            losses[name] = _by_row(model, examples, batch_tokens, label, progress)
        bank.gates.clear()
        tokens = np.array([e.response_length for e in examples], dtype=np.float64)
        cells += [_cell(name, domain, losses[name], losses[BASE], tokens, seed) for name in names]
    return cells


def _by_row(
    model: Any,  # noqa: ANN401
    examples: Sequence[Example],
    batch_tokens: int,
    label: str,
    progress: Callable[[str, int, int], None],
) -> npt.NDArray[np.float64]:
    found = row_losses(model, examples, batch_tokens, lambda d, t: progress(label, d, t))
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
    rng = np.random.default_rng(seed)
    picks = rng.integers(0, len(losses), size=(_RESAMPLES, len(losses)))
    changes = losses[picks].sum(axis=1) / base[picks].sum(axis=1) - 1
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
