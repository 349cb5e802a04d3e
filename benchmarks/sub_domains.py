"""Thirty sub-domains of a data folder: by source, and by language where a source has several.

A folder of this shape holds `train/{code,legal,general,multilingual,mixed}.jsonl`, each row with
`id`, `prompt`, `response`, `source` and `license`. Rows that say the same in other words or in
another language, or that speak of the same page, rule or exercise, are one group.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from experts.examples import Row

_PAGE = r"^(gnome)-[a-z]{2}-(.+?)\n"
_PAGE_PAIR = r"^(gnome)-tr-[a-z]{2}-[a-z]{2}-(.+?)\n"
_FAQ = r"^(debianfaq)-[a-z]{2}-(.+?)\n"
_QUESTION_PAIR = r"^(xquad)-tr-[a-z]{2}-[a-z]{2}-(.+?)\n"
_QUIZ = r"^(jsq)-[a-z]{2}-(\d+)\n"


@dataclass(frozen=True)
class Source:
    """The rows of `train/FILE.jsonl` whose `source` begins with `begins`.

    `group` is a pattern that is searched in "id, line break, prompt"; what it captures names the
    row's group. Without one, or where it is not found, a row is a group by itself.
    """

    file: str
    begins: str
    group: str = ""

    def has(self, row: Row) -> bool:
        """Tell whether a row of the file is of this source."""
        return row.source.startswith(self.begins)

    def group_of(self, row: Row) -> str:
        """The name of the row's group; equal across sources that tell the same."""
        found = re.search(self.group, f"{row.id}\n{row.prompt}", re.DOTALL) if self.group else None
        return "/".join(found.groups()) if found else row.id


def _pairs(language: str, *families: str) -> tuple[Source, ...]:
    """Sentences to translate between English and a language, in both directions."""
    known = {
        "xquad": Source("multilingual", f"google-deepmind/xquad (en-{language} ", _QUESTION_PAIR),
        "gnome": Source("multilingual", f"gnome-user-docs 43.0 (en-{language} ", _PAGE_PAIR),
    }
    return tuple(known[family] for family in families)


def _help(language: str, *, faq: bool = False) -> tuple[Source, ...]:
    """How-to questions about a desktop in a language; with a distribution's where those are few."""
    pages = Source("multilingual", f"gnome-user-docs 43.0 ({language})", _PAGE)
    return (
        (pages, Source("multilingual", f"debian-faq 11.1 ({language})", _FAQ)) if faq else (pages,)
    )


def _quiz(file: str, place: str) -> tuple[Source, ...]:
    """Multiple-choice questions about JavaScript with an explained answer."""
    return (Source(file, f"lydiahallie/javascript-questions ({place}", _QUIZ),)


SUB_DOMAINS: Mapping[str, Sequence[Source]] = {
    "commands": (Source("code", "tldr-pages/tldr", r"^(tldr)-(.+)-\d+\n"),),
    "functions": (Source("code", "TheAlgorithms/Python"),),
    "explained": (
        Source("code", "exercism/python approaches", r'(exercise) "([^"]+)"'),
        Source("code", "exercism/python concepts"),
    ),
    "perl": (Source("code", "perlfaq"),),
    "javascript": _quiz("code", "README.md"),
    "javascript-it": _quiz("mixed", "it-IT/"),
    "javascript-ru": _quiz("mixed", "ru-RU/"),
    "javascript-zh": _quiz("mixed", "zh-CN/"),
    "regulations": (Source("legal", "CFPB regulations", r"^(cfpb-\d+-\d+)"),),
    "rules": (Source("legal", "OR-ShARC", r"\n(Rule): (.+?)\n(?:Situation|Asked|Question): "),),
    "contracts": (Source("legal", "LegalBench cuad", r"(Clause): (.{1,200})"),),
    "overruling": (Source("legal", "LegalBench overruling"),),
    "mathematics": (Source("general", "openai/grade-school-math"),),
    "trivia": (Source("general", "uberspot/OpenTriviaQA"),),
    "open-source": (Source("general", "github/opensource.guide"),),
    "help-de": _help("de"),
    "help-es": _help("es"),
    "help-fr": _help("fr"),
    "help-pt": _help("pt"),
    "help-ru": _help("ru"),
    "help-it": _help("it", faq=True),
    "help-ja": _help("ja", faq=True),
    "help-zh": _help("zh", faq=True),
    "translate-de": _pairs("de", "xquad", "gnome"),
    "translate-es": _pairs("es", "xquad", "gnome"),
    "translate-fr": _pairs("fr", "gnome"),
    "translate-pt": _pairs("pt", "gnome"),
    "translate-ru": _pairs("ru", "xquad", "gnome"),
    "translate-zh": _pairs("zh", "xquad"),
    "translate-ar": _pairs("ar", "xquad"),
}
