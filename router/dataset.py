"""Labelled prompts: read from JSON Lines, balanced over labels and sources, split by hash."""

import hashlib
import json
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path


class DatasetError(ValueError):
    """A labelled row that cannot be used; the message names the file, the line and the key."""


@dataclass(frozen=True)
class LabelledPrompt:
    """One prompt, the experts it belongs to (equal shares), and where it comes from."""

    text: str
    labels: tuple[str, ...]
    language: str
    source: str
    license: str

    @property
    def family(self) -> str:
        """The source without its part in brackets, which names a language or a file."""
        return self.source.split(" (")[0]


def read_prompts(
    paths: Iterable[Path], excluded_licenses: Sequence[str] = ()
) -> Iterator[LabelledPrompt]:
    """Yield the labelled rows of JSON Lines files, in order.

    Rows whose `license` contains one of `excluded_licenses` (any case) are left out.
    Raises `DatasetError` for a line that is not a labelled prompt, `OSError` for a missing file.
    """
    excluded = [name.casefold() for name in excluded_licenses]
    for path in paths:
        with path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                row = _parse(line, f"{path}:{number}")
                if not any(name in row.license.casefold() for name in excluded):
                    yield row


def _parse(line: str, where: str) -> LabelledPrompt:
    try:
        fields = json.loads(line)
    except json.JSONDecodeError as error:
        raise DatasetError(f"{where}: not a JSON object ({error.msg}).") from error
    if not isinstance(fields, dict):
        raise DatasetError(f"{where}: expected a JSON object, got {type(fields).__name__}.")
    return labelled(fields, where)


def labelled(fields: Mapping[str, object], where: str = "row") -> LabelledPrompt:
    """Make a labelled prompt of `prompt` (or `text`) and `domain` (or `expert`, or `domains`)."""
    text = fields.get("prompt") or fields.get("text")
    if not isinstance(text, str) or not text.strip():
        raise DatasetError(f"{where}: `prompt` (or `text`) must be a string that is not empty.")
    labels = fields.get("domains") or [fields.get("domain") or fields.get("expert")]
    if not isinstance(labels, list | tuple) or not labels:
        raise DatasetError(f"{where}: `domains` must be a list of names that is not empty.")
    if not all(isinstance(label, str) and label for label in labels):
        raise DatasetError(f"{where}: `domain` must be the name of an expert; got {labels!r}.")
    return LabelledPrompt(
        text=text,
        labels=tuple(sorted({str(label) for label in labels})),
        language=str(fields.get("lang") or "und"),
        source=str(fields.get("source") or "unnamed"),
        license=str(fields.get("license") or "unknown"),
    )


def fingerprint(text: str) -> int:
    """Return a stable 64-bit hash of the text's letters and digits, folded as NFKC and case."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    letters = "".join(character for character in folded if character.isalnum())
    # A text of symbols alone has no letters to compare by.
    digest = hashlib.blake2b((letters or folded).encode("utf-8", "replace"), digest_size=8)
    return int.from_bytes(digest.digest(), "little")


def balance(
    rows: Iterable[LabelledPrompt], per_label: int, per_pair: int
) -> tuple[LabelledPrompt, ...]:
    """Return at most `per_label` rows of each single label and `per_pair` of each label set.

    Within a label set every family of sources gets the same share; what a small one leaves over
    goes to the others. Duplicates (equal `fingerprint`) are dropped. The choice depends on the
    texts alone, so it is the same on every run.
    """
    groups: dict[tuple[str, ...], dict[str, dict[int, LabelledPrompt]]] = defaultdict(
        lambda: defaultdict(dict)
    )
    seen: set[int] = set()
    for row in rows:
        key = fingerprint(row.text)
        if key not in seen:
            seen.add(key)
            groups[row.labels][row.family][key] = row
    chosen: list[LabelledPrompt] = []
    for labels in sorted(groups):
        quota = per_label if len(labels) == 1 else per_pair
        sources = groups[labels]
        shares = water_fill({name: len(found) for name, found in sources.items()}, quota)
        for name in sorted(sources):
            keys = sorted(sources[name])[: shares[name]]
            chosen += [sources[name][key] for key in keys]
    return tuple(chosen)


def water_fill(sizes: Mapping[str, int], quota: int) -> dict[str, int]:
    """Share `quota` equally over the names, none above its size; the sum never exceeds `quota`."""
    shares: dict[str, int] = {}
    left = quota
    for position, name in enumerate(sorted(sizes, key=lambda name: (sizes[name], name))):
        fair = left // (len(sizes) - position)
        shares[name] = min(sizes[name], fair)
        left -= shares[name]
    return shares


def hash_share(text: str, seed: int = 0) -> float:
    """Return a stable number in [0, 1) for a text and a seed, to split rows by."""
    digest = hashlib.blake2b(f"{seed}:{fingerprint(text)}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") / 2**64
