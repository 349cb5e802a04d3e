"""The model card and the licence notice that stand beside trained weights."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from router.conformal import METADATA_KEY
from router.gate import METADATA_FILE, WEIGHTS_FILE, Gate

CARD_FILE = "README.md"
LICENSE_FILE = "LICENSE"
SHARE_ALIKE = "CC BY-SA 4.0"
SHARE_ALIKE_URL = "https://creativecommons.org/licenses/by-sa/4.0/"
COMMAND = "collegium train router --data FILE... --out router/weights"


def write_card(gate: Gate, folder: Path) -> None:
    """Write `README.md` and `LICENSE` beside a gate that `train_from_files` made.

    Everything in them comes from the gate's metadata: sources, licences, seed and metrics.
    """
    (folder / CARD_FILE).write_text(card_text(gate), encoding="utf-8")
    (folder / LICENSE_FILE).write_text(license_text(gate), encoding="utf-8")


def write_derived_card(gate: Gate, source: Path, folder: Path) -> None:
    """Write card and licence of a gate that was made from the one in `source` without training.

    The licence is that of the source; its card follows what was done since.
    """
    if (source / LICENSE_FILE).is_file():
        shutil.copyfile(source / LICENSE_FILE, folder / LICENSE_FILE)
    card = source / CARD_FILE
    rest = card.read_text(encoding="utf-8") if card.is_file() else ""
    # Of a source that is such a gate itself, what was done before is told by this one's head.
    rest = rest.split(_ORIGIN, 1)[-1]
    (folder / CARD_FILE).write_text(_derived_head(gate) + _ORIGIN + rest, encoding="utf-8")


def write_promised_card(gate: Gate, source: Path, folder: Path) -> None:
    """Write card and licence of the gate in `source` with the promises that `gate` bears now."""
    if folder.resolve() != source.resolve() and (source / LICENSE_FILE).is_file():
        shutil.copyfile(source / LICENSE_FILE, folder / LICENSE_FILE)
    card = source / CARD_FILE
    told = card.read_text(encoding="utf-8") if card.is_file() else ""
    text = told.split(_PROMISES, 1)[0].rstrip("\n") + _PROMISES + _promises(gate)
    (folder / CARD_FILE).write_text(text, encoding="utf-8")


def is_share_alike(gate: Gate) -> bool:
    """Tell whether any of the gate's training data obliges to share alike."""
    return any("-SA-" in source["license"] for source in _sources(gate))


def license_text(gate: Gate) -> str:
    """Return the licence notice of the weights, with the attribution that it asks for."""
    names = "\n".join(f"- {source} ({license})" for source, license, _ in _grouped(gate))
    if not is_share_alike(gate):
        return f"The weights in this folder were trained on data of these sources:\n\n{names}\n"
    return f"""The files in this folder ({WEIGHTS_FILE}, {METADATA_FILE}) are licensed under the
Creative Commons Attribution-ShareAlike 4.0 International License (CC-BY-SA-4.0):
{SHARE_ALIKE_URL}legalcode

The licence of the program around them does not cover them. They were trained on data of the
following sources, used under the licences named; share-alike sources under version 3.0 are
adapted under the later version 4.0, as their licence allows. The authors of the sources do not
endorse this work. Changes: the texts were reduced to numbers (the weights of a classifier, and the
sentence vectors of a sample of the texts); no text is contained.

{names}
"""


def card_text(gate: Gate) -> str:
    """Return the model card in Markdown."""
    facts = gate.metadata
    sections = [
        _head(gate),
        "## Use and limits\n\n" + USE,
        "## Training\n\n" + _training(gate),
        "## Metrics\n\n" + _metrics(facts),
        "## Data\n\n" + _data(gate),
    ]
    return "\n\n".join(sections) + "\n"


USE = """The gate chooses experts for a prompt; it judges neither whether the prompt is harmful nor
whether an answer is right. The sentence encoder is English: other languages are told by script and
character n-grams, so the topic of a prompt in a language without training rows is often not seen.
Probabilities are calibrated on prompts like those of the training data; on other sources expect a
larger error (the `eval` rows below)."""

HANDWRITTEN_SOURCE = "Collegium handwritten prompts"
HANDWRITTEN = f"""

The rows of "{HANDWRITTEN_SOURCE}" (`router/data/handwritten.jsonl`) were written for this gate, a
part of them from templates, because the public data holds few natural questions about code, few
everyday questions in other languages, and none that belong to both law and code."""


_ORIGIN = "\n\n## The trained gate\n\n"
_PROMISES = "\n\n## Promises\n\n"


def _promises(gate: Gate) -> str:
    found = gate.metadata[METADATA_KEY]
    lines = [
        f"| {alpha} | {'cannot be promised' if least is None else f'{least:.4f}'} |"
        for alpha, least in found["thresholds"].items()
    ]
    return f"""Made by `collegium train promises` with the experts' losses on {found["rows"]}
prompts that the gate was not fitted to and leads to an expert. `router.max_risk` is the share of
such requests whose regret may be over {found["epsilon"]:g} nats a token. Experts that were trained
on these prompts lose more on others.

| max_risk | the gate must be this sure |
|---|---|
{chr(10).join(lines)}
"""


def _derived_head(gate: Gate) -> str:
    lines = [
        f"| {name} | {found['examples']} | {found['recall']['value']:.3f} | {found['moved']:.4f} |"
        for name, found in gate.metadata.get("taught", {}).items()
    ]
    table = (
        "| expert | examples | left-out recall | background that it takes |\n|---|---|---|---|\n"
    )
    told = table + "\n".join(lines) if lines else "No expert is taught to it."
    left = sorted(set(gate.rows))
    forgotten = f"\n\nIts units count for {', '.join(left)} alone." if left else ""
    return f"""# Router gate `{gate.version}`

Made from the gate below, without training it anew, for the experts {", ".join(gate.labels)}.
Held-out figures in its `{METADATA_FILE}` are those of the gate below, moved by what the gate's
background shows.

{told}{forgotten}"""


def _head(gate: Gate) -> str:
    terms = f"{SHARE_ALIKE} (see {LICENSE_FILE})" if is_share_alike(gate) else f"see {LICENSE_FILE}"
    return f"""# Router gate `{gate.version}`

A logistic layer from a prompt's sentence vector and surface (hashed character n-grams, script and
punctuation shares) to calibrated probabilities of the experts {", ".join(gate.labels)}.

- Files: `{WEIGHTS_FILE}`, `{METADATA_FILE}`
- Licence of the weights: {terms}
- Sentence encoder: {gate.encoder or "not named"}, {gate.vector_dimensions} dimensions
- Parameters: {gate.weight.size + gate.bias.size:,}{_first_head(gate)}"""


def _first_head(gate: Gate) -> str:
    if gate.first is None:
        return ""
    return (
        f"\n- First stage: the surface alone, {gate.first.weight.size + gate.first.bias.size:,} "
        f"parameters; settles single messages from a confidence of {gate.first.threshold:.4f} on"
    )


def _first_metrics(found: Mapping[str, Any] | None) -> str:
    if found is None or found["accuracy"] is None:
        return ""
    return f"""

The first stage settles {found["share"]:.3f} of the held-out prompts, {found["accuracy"]:.4f} of
them rightly. The accuracy on all is {found["cascade"]:.4f} with it and {found["gate"]:.4f} without;
the table is without."""


def _training(gate: Gate) -> str:
    facts = gate.metadata
    rows = f"{facts['trained_rows']:,} prompts fitted, {facts['calibration_rows']:,}"
    known = facts.get("rows_with_losses", 0)
    measured = " --losses FILE" if known else ""
    share = f" {known:,} fitted prompts have targets from the experts' losses too." if known else ""
    return f"""```
{COMMAND}{measured}
```

Seed {facts["seed"]}, {facts["epochs"]} epochs, {rows}
for the temperature ({gate.temperature:.3f}), {facts["held_out"]["prompts"]:,} held out; the split
goes by a hash of the text. Labels and, within a label, sources are balanced. A prompt of two
experts has a target of one half each.{share}"""


def _metrics(facts: Mapping[str, Any]) -> str:
    head = (
        "| set | prompts | accuracy | NLL | ECE | exact sets | pairs found | experts "
        "| abstained |\n|---|---|---|---|---|---|---|---|---|\n"
    )
    rows = [_metrics_row("held out", facts["held_out"])]
    rows += [_metrics_row(f"eval/{name}", found) for name, found in facts["evaluation"].items()]
    return f"""{head}{chr(10).join(rows)}

Accuracy: the most probable label is one of the prompt's. Exact sets: the default policy chose
precisely its experts. Pairs found: of the prompts with two experts, both were chosen. ECE over 15
bins of equal mass; before the temperature it was {facts["ece_uncalibrated"]:.3f} (held out).\
{_first_metrics(facts.get("settled"))}

Held-out confusion (rows: true label, columns: most probable):

{_confusion(facts["held_out"]["confusion"])}

Held-out accuracy by language:
{_by_language(facts["held_out"]["by_language"])}"""


def _metrics_row(name: str, found: Mapping[str, Any]) -> str:
    pairs = "" if found["pairs_found"] is None else f"{found['pairs_found']:.3f}"
    return (
        f"| {name} | {found['prompts']} | {found['accuracy']:.3f} | {found['nll']:.3f} "
        f"| {found['ece']:.3f} | {found['exact_sets']:.3f} | {pairs} "
        f"| {found['mean_experts']:.2f} | {found['abstained']:.3f} |"
    )


def _confusion(counts: Mapping[str, Mapping[str, int]]) -> str:
    labels = list(counts)
    lines = [f"| | {' | '.join(labels)} |", "|---" * (len(labels) + 1) + "|"]
    lines += [
        f"| {true} | {' | '.join(str(counts[true][label]) for label in labels)} |"
        for true in labels
    ]
    return "\n".join(lines)


def _by_language(accuracies: Mapping[str, float]) -> str:
    return ", ".join(f"{name} {accuracy:.2f}" for name, accuracy in accuracies.items()) + "."


def _data(gate: Gate) -> str:
    lines = [f"| {source} | {license} | {rows} |" for source, license, rows in _grouped(gate)]
    table = "| source | licence | prompts |\n|---|---|---|\n" + "\n".join(lines)
    excluded = gate.metadata["excluded_licenses"]
    if excluded:
        table += f"\n\nRows whose licence names {' or '.join(excluded)} were left out."
    return table + (HANDWRITTEN if HANDWRITTEN_SOURCE in table else "")


def _sources(gate: Gate) -> Sequence[Mapping[str, Any]]:
    return list(gate.metadata["data"])


def _grouped(gate: Gate) -> list[tuple[str, str, int]]:
    """Sources without their part in brackets (language, file), with the sum of their rows."""
    rows: dict[tuple[str, str], int] = {}
    for source in _sources(gate):
        key = (str(source["source"]).split(" (")[0], str(source["license"]))
        rows[key] = rows.get(key, 0) + int(source["rows"])
    return [(*key, count) for key, count in sorted(rows.items())]
