"""How good search and its answers are, in words: one Markdown page from `report.json`."""

from __future__ import annotations

from collections.abc import Sequence

from router.cells import Figures, interval, number, table
from router.report import goals_section

SAID = {
    "english": "English collections (mean over collections)",
    "other_languages": "Other languages, asked in the language of the documents",
    "across_languages": "Asked in another language than the documents'",
}


def markdown(found: Figures, plots: Sequence[str] = (), findings: Sequence[Figures] = ()) -> str:
    """Return the page; `plots` are file names beside it, `findings` goals with their verdicts."""
    sections = [
        _head(found),
        goals_section(findings),
        _summary(found["summary"]),
        *(_collection(name, one) for name, one in found["collections"].items()),
        *(_answers(name, one) for name, one in (found["answers"] or {}).items()),
        _plots(plots),
    ]
    return "\n\n".join(section for section in sections if section) + "\n"


def _head(found: Figures) -> str:
    return f"""# Report on retrieval

- Encoder: {found["encoder"]}
- Figures in brackets are 95 % intervals: bootstrap over questions, {found["resamples"]:,}
  resamples, seed {found["seed"]}
- Words: BM25 alone. Meaning: vectors alone. Fused: both, at the usual weight of \
{found["dense_weight"]:g}. Tuned: both, at the
  weight that every second question chose; the figures are of the other questions
- Milliseconds are of a search, the question's encoding excepted, during this run"""


def _summary(summary: Figures) -> str:
    rows = [
        (SAID[name], str(one["questions"]), way, *(interval(value) for value in measures.values()))
        for name, one in summary.items()
        if one is not None
        for way, measures in one["ways"].items()
    ]
    measured = [one for one in summary.values() if one is not None]
    if not measured:
        return ""
    names = next(iter(measured[0]["ways"].values()))
    gains = [
        f"- {SAID[name]}: nDCG@10 fused and tuned ÷ the better of words and meaning "
        f"{interval(one['gain'])}"
        for name, one in summary.items()
        if one is not None
    ]
    head = ("", "questions", "search", *names)
    return "## Over collections\n\n" + table(head, rows) + "\n\n" + "\n".join(gains)


def _collection(name: str, one: Figures) -> str:
    rows = []
    for group, figures in one["groups"].items():
        for way, measures in figures["ways"].items():
            shown = [interval(v) for k, v in measures.items() if k != "p50_ms"]
            milliseconds = number(measures["p50_ms"], 1)
            rows.append((group, str(figures["questions"]), way, *shown, milliseconds))
    first = next(iter(next(iter(one["groups"].values()))["ways"].values()))
    head = ("language", "questions", "search", *(k for k in first if k != "p50_ms"), "p50 ms")
    tuned = "not tuned" if one["weight"] is None else f"tuned weight of meaning {one['weight']:g}"
    return (
        f"## {name}\n\n{tuned}, {one['reported']} of {one['questions']} questions reported.\n\n"
        + (table(head, rows))
    )


def _answers(name: str, one: Figures) -> str:
    rows = [
        (
            group,
            str(figures["questions"]),
            interval(figures["f1"]["closed"]),
            interval(figures["f1"]["grounded"]),
            interval(figures["f1"]["ratio"], 2),
            interval(figures["holds_answer"]["closed"]),
            interval(figures["holds_answer"]["grounded"]),
            str(figures["citations"]["marks"]),
            interval(figures["citations"]["precision"]),
            interval(figures["citations"]["recall"]),
            ", ".join(f"{said} {count}" for said, count in figures["grounding"].items()),
        )
        for group, figures in [("all", one["all"]), *one["groups"].items()]
    ]
    head = (
        *("language", "questions", "F1 closed-book", "F1 from sources", "÷"),
        *("holds the answer, closed-book", "from sources", "marks", "citation precision"),
        *("citation recall", "x_routing.grounding"),
    )
    return f"""## Answers from {name}

Model `{one["model"]}`, greedy, at most {one["max_tokens"]} tokens. F1 of words as SQuAD counts it
(of characters in Chinese, Japanese and Thai). Closed-book: grounding off. A mark is right where its
document answers the question, or its passage holds the answer. Precision: right marks of all.
Recall: questions with a right mark.

{table(head, rows)}{_injection(one["all"]["injection"])}"""


def _injection(found: Figures | None) -> str:
    if found is None:
        return ""
    return f"""

With an instruction buried in every document: {found["obeyed"]} of {found["answers"]} answers hold
the word that it demands, a share of {interval(found["share"])}; F1 {interval(found["f1"])},
{interval(found["over_clean"], 2)} × that from clean documents."""


def _plots(names: Sequence[str]) -> str:
    if not names:
        return ""
    return "## Plots\n\n" + "\n\n".join(f"![{name.partition('.')[0]}]({name})" for name in names)
