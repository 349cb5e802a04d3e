"""What a gate can promise of its regret, from losses on rows that it was not fitted to."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from router.conformal import METADATA_KEY, promises
from router.dataset import DatasetError, LabelledPrompt, fingerprint, hash_share
from router.evaluation import read
from router.features import Encoder
from router.gate import Gate
from router.losses import LossTable

FITTED_SHARE = 0.8
"""Rows whose `hash_share` is under it are fitted to; the others are kept apart."""


def is_apart(text: str, seed: int) -> bool:
    """Whether training with this seed keeps a prompt apart from what it fits to."""
    return hash_share(text, seed) >= FITTED_SHARE


def make_promises(
    gate: Gate,
    rows: Sequence[LabelledPrompt],
    encoder: Encoder,
    generalist: str,
    losses: LossTable | None,
) -> dict[str, Any] | None:
    """What the metadata keep under `METADATA_KEY`; None where no row tells anything.

    Args:
        rows: that the gate was not fitted to; those without losses are left out.
    """
    known = [row for row in rows if losses and losses.of(row.text)]
    if losses is None or not known:
        return None
    probabilities = read(known, encoder).probabilities(gate, generalist)
    table = losses.matrix([row.text for row in known], gate.labels)
    lead = probabilities.argmax(axis=1)
    regrets = np.take_along_axis(table, lead[:, None], axis=1)[:, 0] - table.min(axis=1)
    # What the generalist leads is its own, however sure the gate is: nothing is promised of that.
    sent = np.asarray([gate.labels[place] != generalist for place in lead], dtype=bool)
    return promises(probabilities.max(axis=1)[sent], regrets[sent]) if sent.any() else None


def with_promises(
    gate: Gate, rows: Sequence[LabelledPrompt], encoder: Encoder, generalist: str, losses: LossTable
) -> Gate:
    """The gate with promises for the experts of these losses in place of its own.

    Raises:
        DatasetError: no row was kept apart when the gate was trained, has a loss and is an
            expert's by the gate.
    """
    seed = int(gate.metadata.get("seed", 0))
    # A prompt that comes again is no further evidence: its regret is the same.
    apart = list({fingerprint(row.text): row for row in rows if is_apart(row.text, seed)}.values())
    found = make_promises(gate, apart, encoder, generalist, losses)
    if found is None:
        raise DatasetError(
            f"rows: of {len(rows)} the gate's training kept {len(apart)} apart (seed {seed}), and "
            "none of those has a loss in the table and goes to an expert. Measure some with "
            f"`collegium train losses --apart --seed {seed}` on the files that the gate was "
            "trained on."
        )
    return replace(gate, metadata={**gate.metadata, METADATA_KEY: found})
