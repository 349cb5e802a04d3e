"""Lessons: decisions that the router was unsure of or was corrected in, as rows to train on."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from safetensors.numpy import save

from router.dataset import fingerprint
from router.features import FEATURE_VERSION
from router.logged_decision import HalfArray, LoggedDecision

SOURCE = "feedback"
_SHOWN = 5


@dataclass(frozen=True)
class Lessons:
    """What a log teaches: decisions with the expert that should have answered, and without.

    `without_text` of them cannot be rows, because their text was not kept.
    """

    corrected: tuple[LoggedDecision, ...]
    doubtful: tuple[LoggedDecision, ...]
    without_text: int


def learn(log: Iterable[LoggedDecision], below: float) -> Lessons:
    """The lessons of a log, oldest first.

    Corrected is a decision for which an expert was named; doubtful one whose best probability is
    under `below`, or whose score is negative. Of equal texts the latest counts, corrected ones
    before doubtful ones.
    """
    found: dict[str, LoggedDecision] = {}
    without_text = 0
    for row in log:
        if not (_correction(row) or _is_doubtful(row, below)):
            continue
        without_text += row.text is None
        # Without their text, two decisions cannot be told to be on the same.
        same = row.id if row.text is None else str(fingerprint(row.text))
        before = found.get(same)
        if before is None or _correction(row) or not _correction(before):
            found[same] = row
    kept = sorted(found.values(), key=lambda row: (row.at, row.id))
    return Lessons(
        corrected=tuple(row for row in kept if _correction(row)),
        doubtful=tuple(row for row in kept if not _correction(row)),
        without_text=without_text,
    )


def as_row(logged: LoggedDecision) -> dict[str, object]:
    """A row of training data; `domain` is null where nobody said who should have answered.

    `candidates` are those that come into question then, with their probabilities.
    """
    best = dict(sorted(logged.probabilities.items(), key=lambda item: -item[1])[:_SHOWN])
    return {
        "prompt": logged.text,
        "domain": _correction(logged),
        "candidates": {name: round(value, 4) for name, value in best.items()},
        "chosen": list(logged.chosen),
        "score": logged.score,
        "comment": logged.opinion.comment if logged.opinion else None,
        "source": SOURCE,
        "decision_id": logged.id,
        "at": datetime.fromtimestamp(logged.at, UTC).isoformat(timespec="seconds"),
    }


def write_rows(path: Path, lessons: Sequence[LoggedDecision], *, labelled: bool = False) -> int:
    """Write JSON Lines of those whose text was kept, and return how many.

    Where rows are `labelled` in the file, what somebody filled in as `domain` stays, and so does
    such a row that is no lesson any more.

    Raises `ValueError` for such a file that holds something else, `OSError`.
    """
    kept = _labelled(path) if labelled else {}
    rows = [as_row(logged) for logged in lessons if logged.text is not None]
    for row in rows:
        earlier = kept.pop(str(row["decision_id"]), None)
        if row["domain"] is None and earlier is not None:
            row["domain"] = earlier["domain"]
    rows = [*kept.values(), *rows]
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    scratch = path.with_name(f".{path.name}.new")
    scratch.write_text(text, encoding="utf-8")
    scratch.replace(path)
    return len(rows)


def _labelled(path: Path) -> dict[str, dict[str, object]]:
    """The rows of a file by decision that somebody gave a domain."""
    found: dict[str, dict[str, object]] = {}
    lines = path.read_text(encoding="utf-8").split("\n") if path.is_file() else []
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                row: dict[str, object] = json.loads(line)
                name = str(row["decision_id"])
            except (KeyError, TypeError, ValueError) as error:
                words = "is no row of this command; name another file"
                raise ValueError(f"{path}:{number}: {words} ({error}).") from error
            if row.get("domain") is not None:
                found[name] = row
    return found


def write_features(path: Path, lessons: Sequence[LoggedDecision], encoder: str) -> int:
    """Write what was read of corrected decisions without text, as safetensors; return how many.

    `features` are float16 [rows, f]; a decision has as many rows as its message has parts, from
    `starts` [n] on. Of what a first stage settled there are `surfaces` [k, s] alone. The metadata
    hold `domains` and `surface_domains` (JSON, [n] and [k]), the `version` of the features, and the
    `encoder` with the `dimensions` of its vectors. Those of another release or encoder are left
    out, and those with text, which are rows of `write_rows`.
    """
    whole: list[_Picked] = []
    settled: list[_Picked] = []
    for logged in lessons:
        name, read = _correction(logged), logged.read
        if name is None or read is None or logged.text is not None:
            continue
        if (read.version, read.encoder) == (FEATURE_VERSION, encoder):
            picked = _Picked(name, np.atleast_2d(read.features()), read.dimensions)
            (whole if read.dimensions else settled).append(picked)
    widths = {one.dimensions for one in whole}
    if len(widths) > 1:
        raise ValueError(f"{encoder!r} gave sentence vectors of several lengths: {sorted(widths)}.")
    counts = [len(one.rows) for one in whole]
    tensors = {
        "features": _stacked(whole),
        "starts": np.concatenate([[0], np.cumsum(counts)])[: len(whole)].astype(np.int64),
        "surfaces": _stacked(settled),
    }
    described: Mapping[str, str] = {
        "domains": json.dumps([one.domain for one in whole], ensure_ascii=False),
        "surface_domains": json.dumps([one.domain for one in settled], ensure_ascii=False),
        "version": FEATURE_VERSION,
        "encoder": encoder,
        "dimensions": str(next(iter(widths), 0)),
    }
    path.write_bytes(save(tensors, metadata=dict(described)))
    return len(whole) + len(settled)


@dataclass(frozen=True, eq=False)
class _Picked:
    domain: str
    rows: HalfArray
    dimensions: int


def _stacked(picked: Sequence[_Picked]) -> HalfArray:
    empty = np.zeros((0, 0), dtype=np.float16)
    return np.concatenate([one.rows for one in picked]) if picked else empty


def _correction(logged: LoggedDecision) -> str | None:
    return logged.opinion.expert if logged.opinion else None


def _is_doubtful(logged: LoggedDecision, below: float) -> bool:
    return logged.confidence < below or (logged.score is not None and logged.score < 0.0)
