"""Training of the gate: labelled prompts in, calibrated gate and report out."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from router.augment import varied
from router.background import choose_rows, make_background
from router.calibration import Matrix, calibration_error, fit_temperature, softmax
from router.card import write_card
from router.dataset import DatasetError, LabelledPrompt, balance, hash_share, read_prompts
from router.evaluation import Metrics, evaluate, feature_matrix, target_matrix
from router.features import Encoder, Vector, salient
from router.gate import Gate
from router.losses import LossTable
from router.optimizer import Array, FitSettings, fit
from router.surface import HASH_DIMENSIONS, STATISTICS
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
    see `router.targets`.
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
) -> tuple[Gate, Report]:
    """Return a calibrated gate for the labels of `rows`, and the report.

    Targets are the labels, mixed with what `losses` says where it knows a prompt's answer. With
    `variations` every fitted row is learned a second time, said otherwise (`router.augment`).

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
    encoded = encode([*fitted, *calibration, *held_out], encoder, encoder_name, cache, progress)
    vectors, calibration_vectors, held_out_vectors = np.split(
        encoded, [len(fitted), len(fitted) + len(calibration)]
    )
    gate = _fit(labels, fitted, vectors, FitSettings(epochs=epochs), seed, progress, losses)
    gate = replace(gate, encoder=encoder_name)
    features = feature_matrix(calibration, calibration_vectors)
    targets = target_matrix(calibration, labels)
    temperature = fit_temperature(gate.scores(features), targets)
    encoded = np.concatenate([calibration_vectors, held_out_vectors, vectors[:originals]])
    calibrated = replace(gate, temperature=temperature)
    unseen = [*calibration, *held_out]
    calibrated = _with_background(calibrated, unseen, fitted[:originals], encoded, seed)
    report = Report(
        trained_rows=originals,
        rows_with_losses=known,
        collapse=collapse(calibrated.probabilities(feature_matrix(held_out, held_out_vectors))),
        calibration_rows=len(calibration),
        temperature=temperature,
        ece_uncalibrated=_uncalibrated_error(gate, held_out, held_out_vectors),
        held_out=evaluate(calibrated, held_out, held_out_vectors),
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
    )
    found = {}
    for path in evaluation:
        unseen = list(read_prompts([path]))
        vectors = encode(unseen, encoder, encoder_name, cache, progress)
        found[path.stem] = evaluate(gate, unseen, vectors)
    report = replace(report, evaluation=found)
    settings = {"seed": seed, "epochs": epochs, "excluded_licenses": list(excluded_licenses)}
    gate = replace(gate, metadata={**settings, **report.metadata()})
    gate.save(out)
    write_card(gate, out)
    return gate, report


def encode(
    rows: Sequence[LabelledPrompt],
    encoder: Encoder,
    encoder_name: str = "",
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Vector:
    """Return the sentence vectors [n, d] of rows; kept in the file `cache`, if given."""
    texts = [salient(row.text) for row in rows]
    if cache is None:
        return np.asarray(encoder(texts), dtype=np.float32)
    return VectorCache(cache, encoder, encoder_name).encode(texts, progress)


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
    vectors: Vector,
    settings: FitSettings,
    seed: int,
    progress: Progress | None,
    losses: LossTable | None,
) -> Gate:
    shares = target_matrix(rows, labels)
    targets = mixed_targets(shares, [row.text for row in rows], labels, losses)
    scale = _scale(vectors.shape[1])
    features = feature_matrix(rows, vectors) * scale
    weight, bias = fit(
        features, targets.astype(np.float32), _row_weights(shares), settings, seed, progress
    )
    # Folded into the weights, the scales are not needed at routing time.
    return Gate(labels=labels, weight=weight * scale, bias=bias)


def _with_background(
    gate: Gate,
    unseen: Sequence[LabelledPrompt],
    fitted: Sequence[LabelledPrompt],
    vectors: Vector,
    seed: int,
) -> Gate:
    places = choose_rows(len(unseen), len(fitted), seed)
    known = [*unseen, *fitted]
    rows = [known[place] for place in places]
    features, targets = feature_matrix(rows, vectors[places]), target_matrix(rows, gate.labels)
    logits, size = features @ gate.weight.T + gate.bias, gate.vector_dimensions
    return replace(gate, background=make_background(features, logits, targets, size))


def _scale(vector_dimensions: int) -> Array:
    scales = (VECTOR_SCALE, NGRAM_SCALE, STATISTICS_SCALE)
    return np.repeat(scales, (vector_dimensions, HASH_DIMENSIONS, STATISTICS)).astype(np.float32)


def _row_weights(targets: Matrix) -> Array:
    """Weights of mean 1 that give every label the same mass."""
    weights = (targets / targets.sum(axis=0)).sum(axis=1)
    return np.asarray(weights / weights.mean(), dtype=np.float32)


def _uncalibrated_error(gate: Gate, rows: Sequence[LabelledPrompt], vectors: Vector) -> float:
    scores = gate.scores(feature_matrix(rows, vectors))
    return calibration_error(softmax(scores), target_matrix(rows, gate.labels))


def _count_sources(rows: Sequence[LabelledPrompt]) -> tuple[SourceCount, ...]:
    counts = Counter((row.source, row.license) for row in rows)
    return tuple(SourceCount(*key, rows=count) for key, count in sorted(counts.items()))
