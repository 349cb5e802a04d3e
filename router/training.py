"""Training of the gate: labelled prompts in, calibrated gate and report out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from router.augment import stories, varied
from router.background import choose_rows, make_background
from router.calibration import Matrix, fit_temperature
from router.card import write_card
from router.conformal import METADATA_KEY, promises
from router.dataset import DatasetError, LabelledPrompt, balance, hash_share, read_prompts
from router.evaluation import Metrics, Reading, evaluate, read, target_matrix
from router.features import Encoder
from router.gate import Gate
from router.losses import LossTable
from router.memory import EncoderMemory
from router.optimizer import Array, FitSettings, fit
from router.parts import columns, strongest
from router.surface import HASH_DIMENSIONS, STATISTICS, SURFACE_DIMENSIONS
from router.targets import collapse, mixed_targets
from router.vectors import Progress, VectorCache

TRAIN_SHARE = 0.8
CALIBRATION_SHARE = 0.1
PER_LABEL = 1600
PER_PAIR = 600
EXCLUDED_LICENSES = ("Debian-FAQ", "Artistic")

# Blocks differ in how far their entries spread; the scales make one weight decay fit all.
# Chosen on questions asked otherwise than in the training rows (README.md).
VECTOR_SCALE, NGRAM_SCALE, STATISTICS_SCALE = 8.0, 3.0, 2.0
SCALES = (VECTOR_SCALE, NGRAM_SCALE, STATISTICS_SCALE)


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
    of rows that were not fitted are known.
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

    def metadata(self) -> dict[str, Any]:
        """Return the report as a mapping fit for JSON."""
        return {
            "trained_rows": self.trained_rows,
            "calibration_rows": self.calibration_rows,
            "rows_with_losses": self.rows_with_losses,
            "collapse": {name: round(value, 4) for name, value in self.collapse.items()},
            "ece_uncalibrated": round(self.ece_uncalibrated, 4),
            "held_out": self.held_out.rounded(),
            "evaluation": {name: found.rounded() for name, found in self.evaluation.items()},
            "data": [asdict(source) for source in self.sources],
            **({METADATA_KEY: dict(self.promises)} if self.promises else {}),
        }


def train_gate(
    rows: Sequence[LabelledPrompt],
    encoder: Encoder,
    *,
    seed: int = 0,
    epochs: int = 24,
    progress: Progress | None = None,
    encoder_name: str = "",
    cache: Path | None = None,
    losses: LossTable | None = None,
    variations: bool = True,
    generalist: str = "general",
    scales: tuple[float, float, float] = SCALES,
) -> tuple[Gate, Report]:
    """Return a calibrated gate for the labels of `rows`, and the report.

    Targets are the labels, mixed with what `losses` says where it knows a prompt's answer. With
    `variations` every fitted row is learned again, said otherwise (`router.augment`).
    Blocks of features whose scale is 0 are not learned from.

    Rows are split by a hash of their text: 80 % for fitting, 10 % for the temperature, 10 % held
    out. Sentence vectors are kept in the SQLite file `cache`, if given. `progress` is called with
    ("encode" or "train", done, total). Raises `DatasetError` where there is too little to split.
    """
    labels = tuple(sorted({label for row in rows for label in row.labels}))
    parts = _split(rows, seed)
    if len(labels) < 2 or not all(parts):
        raise DatasetError(
            f"rows: {len(rows)} rows with {len(labels)} labels are too few to train on; "
            "at least two labels and some dozens of rows are needed."
        )
    fitted, calibration, held_out = parts
    originals = len(fitted)
    known = sum(losses.of(row.text) is not None for row in fitted) if losses else 0
    if variations:
        fitted = [*fitted, *varied(fitted, labels, seed)]
        fitted += stories(generalist, seed) if generalist in labels else []
    memory = remember([*fitted, *calibration, *held_out], encoder, encoder_name, cache, progress)
    how = FitSettings(epochs=epochs), seed, progress, losses, scales
    gate = replace(_fit(labels, fitted, read(fitted, memory), *how), encoder=encoder_name)
    targets = target_matrix(calibration, labels)
    temperature = fit_temperature(read(calibration, memory).scores(gate, generalist), targets)
    apart = [*calibration, *held_out]
    backdrop = [(apart + fitted)[place] for place in choose_rows(len(apart), originals, seed)]
    calibrated = replace(gate, temperature=temperature)
    calibrated = _with_background(calibrated, backdrop, read(backdrop, memory), generalist)
    unseen = read(held_out, memory)
    report = Report(
        trained_rows=originals,
        rows_with_losses=known,
        promises=_promises(calibrated, apart, memory, generalist, losses),
        collapse=collapse(unseen.probabilities(calibrated, generalist)),
        calibration_rows=len(calibration),
        temperature=temperature,
        ece_uncalibrated=evaluate(gate, held_out, unseen, generalist).ece,
        held_out=evaluate(calibrated, held_out, unseen, generalist),
        sources=_count_sources(rows),
        evaluation={},
    )
    return replace(calibrated, metadata={"seed": seed, **report.metadata()}), report


def train_from_files(
    files: Sequence[Path],
    out: Path,
    encoder: Encoder,
    *,
    encoder_name: str,
    evaluation: Sequence[Path] = (),
    excluded_licenses: Sequence[str] = EXCLUDED_LICENSES,
    seed: int = 0,
    epochs: int = 24,
    cache: Path | None = None,
    progress: Progress | None = None,
    losses: LossTable | None = None,
    variations: bool = True,
    generalist: str = "general",
) -> tuple[Gate, Report]:
    """Train on JSON Lines files and write weights, model card and licence notice into `out`.

    The rows are balanced first (`PER_LABEL` rows of each label, `PER_PAIR` of each pair, sources
    alike). `evaluation` files are only measured on, each under its file name's stem.
    """
    rows = balance(read_prompts(files, excluded_licenses), PER_LABEL, PER_PAIR)
    gate, report = train_gate(
        rows,
        encoder,
        seed=seed,
        epochs=epochs,
        progress=progress,
        encoder_name=encoder_name,
        cache=cache,
        losses=losses,
        variations=variations,
        generalist=generalist,
    )
    found = {}
    for path in evaluation:
        unseen = list(read_prompts([path]))
        memory = remember(unseen, encoder, encoder_name, cache, progress)
        found[path.stem] = evaluate(gate, unseen, read(unseen, memory), generalist)
    report = replace(report, evaluation=found)
    settings = {"seed": seed, "epochs": epochs, "excluded_licenses": list(excluded_licenses)}
    gate = replace(gate, metadata={**settings, **report.metadata()})
    gate.save(out)
    write_card(gate, out)
    return gate, report


def remember(
    rows: Sequence[LabelledPrompt],
    encoder: Encoder,
    encoder_name: str = "",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> EncoderMemory:
    """Return an encoder that has the vectors of rows ready; kept in the file `cache`, if given."""
    kept = encoder if cache is None else VectorCache(cache, encoder, encoder_name)
    memory = EncoderMemory(kept)
    memory.learn([row.text for row in rows], progress)
    return memory


def _split(
    rows: Sequence[LabelledPrompt], seed: int
) -> tuple[list[LabelledPrompt], list[LabelledPrompt], list[LabelledPrompt]]:
    parts: tuple[list[LabelledPrompt], ...] = ([], [], [])
    for row in rows:
        position = hash_share(row.text, seed)
        part = (
            0 if position < TRAIN_SHARE else 1 if position < TRAIN_SHARE + CALIBRATION_SHARE else 2
        )
        parts[part].append(row)
    return parts[0], parts[1], parts[2]


def _fit(
    labels: tuple[str, ...],
    rows: Sequence[LabelledPrompt],
    reading: Reading,
    settings: FitSettings,
    seed: int,
    progress: Progress | None,
    losses: LossTable | None,
    scales: tuple[float, float, float],
) -> Gate:
    shares = target_matrix(rows, labels)
    targets = mixed_targets(shares, [row.text for row in rows], labels, losses)
    # A part is taken for what the whole is, and the parts of a text weigh as much as a whole one.
    each = np.repeat(np.arange(len(rows)), reading.counts)
    weights = (_row_weights(shares) / reading.counts)[each].astype(np.float32)
    scale = _scale(reading.features.shape[1] - SURFACE_DIMENSIONS, scales)
    weight, bias = fit(
        reading.features * scale,
        targets[each].astype(np.float32),
        weights,
        settings,
        seed,
        progress,
    )
    # Folded into the weights, the scales are not needed at routing time.
    return Gate(labels=labels, weight=weight * scale, bias=bias)


def _promises(
    gate: Gate,
    rows: Sequence[LabelledPrompt],
    encoder: Encoder,
    generalist: str,
    losses: LossTable | None,
) -> dict[str, Any] | None:
    known = [row for row in rows if losses and losses.of(row.text)]
    if losses is None or not known:
        return None
    probabilities = read(known, encoder).probabilities(gate, generalist)
    table = losses.matrix([row.text for row in known], gate.labels)
    led = np.take_along_axis(table, probabilities.argmax(axis=1)[:, None], axis=1)[:, 0]
    return promises(probabilities.max(axis=1), led - table.min(axis=1))


def _with_background(
    gate: Gate, rows: Sequence[LabelledPrompt], reading: Reading, generalist: str
) -> Gate:
    logits = strongest(
        reading.features @ gate.weight.T + gate.bias,
        reading.starts,
        columns(gate.labels, generalist),
    )
    vectors = reading.vectors(gate.vector_dimensions)
    targets = target_matrix(rows, gate.labels)
    return replace(gate, background=make_background(vectors, logits, targets))


def _scale(vector_dimensions: int, scales: tuple[float, float, float]) -> Array:
    return np.repeat(scales, (vector_dimensions, HASH_DIMENSIONS, STATISTICS)).astype(np.float32)


def _row_weights(targets: Matrix) -> Array:
    """Weights of mean 1 that give every label the same mass."""
    weights = (targets / targets.sum(axis=0)).sum(axis=1)
    return np.asarray(weights / weights.mean(), dtype=np.float32)


def _count_sources(rows: Sequence[LabelledPrompt]) -> tuple[SourceCount, ...]:
    counts = Counter((row.source, row.license) for row in rows)
    return tuple(SourceCount(*key, rows=count) for key, count in sorted(counts.items()))
