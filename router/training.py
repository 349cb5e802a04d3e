"""Training of the gate: labelled prompts in, calibrated gate and report out."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from router.augment import stories, varied
from router.background import choose_rows, make_background
from router.calibration import fit_temperature
from router.card import write_card
from router.cascade import measure_settled
from router.dataset import DatasetError, LabelledPrompt, balance, hash_share, read_prompts
from router.evaluation import Reading, evaluate, read, target_matrix
from router.feature_rows import FeatureRows
from router.features import Encoder
from router.first import LEAST_TRIED, FirstStage
from router.fitting import SCALES, calibrate_first, fit_first, fit_gate, material
from router.follow_ups import followed, read_followed
from router.gate import Gate
from router.losses import LossTable
from router.memory import EncoderMemory
from router.optimizer import FitSettings
from router.parts import columns, strongest
from router.phrases import TRIED
from router.promising import FITTED_SHARE, make_promises
from router.targets import collapse
from router.training_report import Report, SourceCount
from router.vectors import Progress, VectorCache

CALIBRATION_SHARE = 0.1
PER_LABEL = 1600
PER_PAIR = 600
EXCLUDED_LICENSES = ("Debian-FAQ", "Artistic")


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
    corrections: FeatureRows | None = None,
    scales: tuple[float, float, float] = SCALES,
    least_tried: int = LEAST_TRIED,
) -> tuple[Gate, Report]:
    """Return a calibrated gate for the labels of `rows`, and the report.

    Targets are the labels, mixed with what `losses` says where it knows a prompt's answer. With
    `variations` every fitted row is learned again, said otherwise (`router.augment`).
    `corrections` are fitted to as well, all of them: they are mistakes by selection, and would
    spoil a temperature. Blocks of features whose scale is 0 are not learned from. There is no
    first stage where fewer prompts than `least_tried` are kept apart to try it on.

    Rows are split by a hash of their text: 80 % for fitting, 10 % for the temperature, 10 % held
    out. Sentence vectors are kept in the SQLite file `cache`, if given. `progress` is called with
    ("encode" or "train", done, total). Raises `DatasetError` where there is too little to split.
    """
    labels = tuple(sorted({label for row in rows for label in row.labels}))
    split = _split(rows, labels, seed)
    fitted = _said_otherwise(split.fitted, labels, generalist, seed) if variations else split.fitted
    wanted = [*fitted, *split.apart]
    memory = remember(wanted, encoder, encoder_name, cache, progress)
    beside = _followed(split.fitted, memory, seed) if variations else None
    given = material(labels, fitted, read(fitted, memory), losses, corrections, beside)
    settings = FitSettings(epochs=epochs)
    how = settings, seed, progress, scales
    gate = replace(fit_gate(labels, given, *how), encoder=encoder_name)
    calibrated = _calibrated(gate, split, memory, generalist, seed)
    first = fit_first(given, *how)
    if len(split.calibration) >= least_tried:
        tried = varied(split.calibration, labels, seed, TRIED) if variations else []
        calibrated = _with_first(calibrated, first, split.calibration, tried, memory, generalist)
    unseen = read(split.held_out, memory)
    report = Report(
        trained_rows=len(split.fitted),
        rows_with_losses=sum(bool(losses and losses.of(row.text)) for row in split.fitted),
        promises=make_promises(calibrated, split.apart, memory, generalist, losses),
        collapse=collapse(unseen.probabilities(calibrated, generalist)),
        calibration_rows=len(split.calibration),
        temperature=calibrated.temperature,
        ece_uncalibrated=evaluate(gate, split.held_out, unseen, generalist).ece,
        held_out=evaluate(calibrated, split.held_out, unseen, generalist),
        sources=_count_sources(rows),
        settled=measure_settled(calibrated, split.held_out, unseen, generalist),
        corrections=0 if corrections is None else len(corrections),
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
    corrections: FeatureRows | None = None,
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
        corrections=corrections,
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


@dataclass(frozen=True)
class _Split:
    """Rows to fit to, to calibrate on, and to measure on."""

    fitted: list[LabelledPrompt]
    calibration: list[LabelledPrompt]
    held_out: list[LabelledPrompt]

    @property
    def apart(self) -> list[LabelledPrompt]:
        """All that is not fitted to."""
        return [*self.calibration, *self.held_out]


def _split(rows: Sequence[LabelledPrompt], labels: Sequence[str], seed: int) -> _Split:
    split = _Split([], [], [])
    for row in rows:
        position = hash_share(row.text, seed)
        if position < FITTED_SHARE:
            split.fitted.append(row)
        elif position < FITTED_SHARE + CALIBRATION_SHARE:
            split.calibration.append(row)
        else:
            split.held_out.append(row)
    if len(labels) < 2 or not (split.fitted and split.calibration and split.held_out):
        raise DatasetError(
            f"rows: {len(rows)} rows with {len(labels)} labels are too few to train on; "
            "at least two labels and some dozens of rows are needed."
        )
    return split


def _said_otherwise(
    rows: Sequence[LabelledPrompt], labels: Sequence[str], generalist: str, seed: int
) -> list[LabelledPrompt]:
    neutral = stories(generalist, seed) if generalist in labels else []
    return [*rows, *varied(rows, labels, seed), *neutral]


def _followed(
    rows: Sequence[LabelledPrompt], memory: EncoderMemory, seed: int
) -> tuple[list[LabelledPrompt], Reading] | None:
    told = followed(rows, seed)
    memory.learn([text for _, texts in told for text in texts])
    return ([row for row, _ in told], read_followed(told, memory)) if told else None


def _calibrated(
    gate: Gate, split: _Split, memory: EncoderMemory, generalist: str, seed: int
) -> Gate:
    """With temperature and background."""
    targets = target_matrix(split.calibration, gate.labels)
    scores = read(split.calibration, memory).scores(gate, generalist)
    warm = replace(gate, temperature=fit_temperature(scores, targets))
    rows = [*split.apart, *split.fitted]
    places = choose_rows(len(split.apart), len(split.fitted), seed)
    backdrop = [rows[place] for place in places]
    return _with_background(warm, backdrop, read(backdrop, memory), generalist)


def _with_first(
    gate: Gate,
    first: FirstStage,
    rows: Sequence[LabelledPrompt],
    tried: Sequence[LabelledPrompt],
    memory: EncoderMemory,
    generalist: str,
) -> Gate:
    whole = [*rows, *tried]
    memory.learn([row.text for row in whole])
    pairs = (rows, read(rows, memory)), (whole, read(whole, memory))
    found = calibrate_first(first, gate, *pairs, generalist)
    # A stage that settles nothing would only take time.
    return replace(gate, first=found) if found.threshold <= 1.0 else gate


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


def _count_sources(rows: Sequence[LabelledPrompt]) -> tuple[SourceCount, ...]:
    counts = Counter((row.source, row.license) for row in rows)
    return tuple(SourceCount(*key, rows=count) for key, count in sorted(counts.items()))
