"""Passages with a question and its answer, from the rows that the experts are trained on."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LONGEST = 900
"""Characters of a passage, as the service shows it to a small model."""
_TOLD = 280
_TERMS = re.compile(r"copyleft|artistic|gpl", re.IGNORECASE)
_ASKED = re.compile(r"^[^\n]*\n\n(.+)\n\n[^\n:：]{2,12}[:：]\s*([^\n]+)$", re.DOTALL)
_HOW_TO = re.compile(r"^[^?？。.]*GNOME[^?？。.]*[?？。.]\s*(.+)$", re.DOTALL)
_COMMAND = re.compile(r"`([^`\n]+)`")
_FRAMES = r"^(?:How (?:do|can) I|What is the command to|Which command do I use to) "
_STOP = re.compile(r"(?<=[.!?。！？])\s+|\n+")


@dataclass(frozen=True)
class Reading:
    """What a passage answers; `answer` stands in the passage."""

    id: str
    title: str
    passage: str
    question: str
    answer: str
    lang: str
    source: str
    license: str


def readings(folder: Path, rows: int, seed: int) -> Mapping[str, Sequence[Reading]]:
    """By domain: at most `rows` of each kind, drawn by the seed."""
    rng = random.Random(seed)
    code, legal, many = (_rows(folder / f"{name}.jsonl") for name in _DOMAINS)
    kinds = {
        "code": [list(_commands(code, rng))],
        "legal": [list(_told(legal, "CFPB regulations"))],
        "multilingual": [list(_spans(many)), list(_how_to(many))],
    }
    return {
        name: [one for kind in found for one in rng.sample(kind, min(rows, len(kind)))]
        for name, found in kinds.items()
    }


_DOMAINS = ("code", "legal", "multilingual")


def _rows(path: Path) -> list[dict[str, Any]]:
    lines = path.read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line.strip()]
    return [row for row in rows if row.get("response") and not _TERMS.search(row["license"])]


def _of(row: Mapping[str, Any], title: str, passage: str, question: str, answer: str) -> Reading:
    told = row["lang"], row["source"], row["license"]
    return Reading(row["id"], title, passage, question, answer, *told)


def _spans(rows: Sequence[Mapping[str, Any]]) -> Iterator[Reading]:
    """Reading questions, whose answer is a few words of the passage."""
    for row in rows:
        found = _ASKED.match(row["prompt"]) if row.get("title") else None
        if found and row["response"] in found[1][: 2 * LONGEST]:
            passage = _around(found[1], row["response"])
            yield _of(row, row["title"].replace("_", " "), passage, found[2], row["response"])


def _how_to(rows: Sequence[Mapping[str, Any]]) -> Iterator[Reading]:
    """Pages of instructions; the answer is how they begin."""
    for row in rows:
        found = _HOW_TO.match(row["prompt"])
        if found and re.fullmatch(r"gnome-user-docs \S+ \(..\)", row["source"]):
            passage = _cut(row["response"], LONGEST)
            yield _of(row, "GNOME", passage, found[1].strip(), _cut(passage, _TOLD))


def _told(rows: Sequence[Mapping[str, Any]], source: str) -> Iterator[Reading]:
    """Paragraphs under a question that names them; the answer is how they begin."""
    for row in rows:
        if row["source"].startswith(source) and len(row["response"]) > 80:
            named = re.search(r"Regulation \w+(?: \([^)]*\))?", row["prompt"])
            heads = re.findall(r'"([^"]+)"', row["prompt"])
            title = " - ".join([*([named[0]] if named else []), *heads]) or source
            passage = _cut(row["response"], LONGEST)
            yield _of(row, title, passage, row["prompt"], _cut(passage, _TOLD))


def _commands(rows: Sequence[Mapping[str, Any]], rng: random.Random) -> Iterator[Reading]:
    """Pages of a command with its uses; the answer is the line that is asked for."""
    pages: dict[str, list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        names = _COMMAND.findall(row["prompt"])
        if row["source"].startswith("tldr-pages") and names:
            pages[names[-1]].append(row)
    for name, found in pages.items():
        uses = [f"- {_use(row['prompt'])}:\n  {_line(row['response'])}" for row in found]
        rng.shuffle(uses)
        for row in found:
            yield _of(row, name, _cut("\n".join(uses), LONGEST), row["prompt"], row["response"])


def _use(prompt: str) -> str:
    bare = re.sub(r",? (?:with|using|use|by) `[^`]+`", "", prompt.split("\n")[0])
    return re.sub(_FRAMES, "", bare.rpartition(": ")[2]).rstrip(".?")


def _line(response: str) -> str:
    return re.sub(r"^```\w*\n|\n```$", "", response.strip())


def _around(text: str, answer: str) -> str:
    """The text cut to length so that the answer is in it."""
    if len(text) <= LONGEST:
        return text
    at = text.index(answer)
    start = 0 if at + len(answer) < LONGEST else at - LONGEST // 2
    return text[start : start + LONGEST]


def _cut(text: str, longest: int) -> str:
    """The first sentences of a text that fit, at least one."""
    kept = 0
    for found in _STOP.finditer(text):
        if found.start() > longest and kept:
            break
        kept = found.start()
    return text if len(text) <= longest else text[: kept or longest].strip()
