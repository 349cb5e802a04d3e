"""What training found, for the gate's metadata."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from router.cascade import Settled
from router.conformal import METADATA_KEY
from router.evaluation import Metrics


@dataclass(frozen=True)
class SourceCount:
    """How many rows of one source, under one licence, a gate was trained and measured on."""

    source: str
    license: str
    rows: int


@dataclass(frozen=True)
class Report:
    """What training found. `held_out` rows took no part in fitting or calibration.

    `ece_uncalibrated` is that of the same rows at temperature 1. `evaluation` holds metrics of
    further files by their name. `collapse` tells how evenly the held-out rows are led by labels,
    see `router.targets`. `promises` are thresholds of confidence (`router.conformal`), where losses
    of rows that were not fitted are known. `settled` is what the first stage does to the held-out
    rows, None where no confidence is high enough for one. `corrections` counts decisions that were
    fitted to as numbers.
    """

    trained_rows: int
    calibration_rows: int
    temperature: float
    ece_uncalibrated: float
    held_out: Metrics
    sources: tuple[SourceCount, ...]
    evaluation: Mapping[str, Metrics]
    rows_with_losses: int = 0
    collapse: Mapping[str, float] = field(default_factory=dict)
    promises: Mapping[str, Any] | None = None
    settled: Settled | None = None
    corrections: int = 0

    def metadata(self) -> dict[str, Any]:
        """Return the report as a mapping fit for JSON."""
        return {
            "trained_rows": self.trained_rows,
            "calibration_rows": self.calibration_rows,
            "rows_with_losses": self.rows_with_losses,
            **({"corrections": self.corrections} if self.corrections else {}),
            "collapse": {name: round(value, 4) for name, value in self.collapse.items()},
            "ece_uncalibrated": round(self.ece_uncalibrated, 4),
            "held_out": self.held_out.rounded(),
            "settled": None if self.settled is None else self.settled.rounded(),
            "evaluation": {name: found.rounded() for name, found in self.evaluation.items()},
            "data": [asdict(source) for source in self.sources],
            **({METADATA_KEY: dict(self.promises)} if self.promises else {}),
        }
