"""Open licence texts as documents, found on this machine and recognised by their wording.

Each licence is cut out of the files that installed distributions ship, between its known first
and last words, so notices that bundle several licences serve as well. Of the variants of one
licence, which differ in the names they carry, the most frequent one is taken.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from retrieval.document import Document

SYSTEM_FOLDER = Path("/usr/share/common-licenses")
"""Where Debian and its relatives keep licence texts; read as well where it exists."""

_LICENCE_FILE = re.compile(r"licen[cs]e|copying|notice", re.IGNORECASE)
_CODE_FILE = re.compile(r"\.(py|pyc|pyi|js|json|html|so)$", re.IGNORECASE)
_MARGIN = re.compile(r"^\s*(?:[#*]|//|>)?\s*")
_LARGEST_FILE = 2_000_000


@dataclass(frozen=True, slots=True)
class _Licence:
    spdx: str
    name: str
    first: str
    last: str
    longest: int
    needs: str = ""
    lacks: str = ""

    def find(self, text: str) -> Iterator[str]:
        """Yield each occurrence of the licence in `text`, from its first to its last words."""
        first, last = _spaced(self.first), _spaced(self.last)
        # A second beginning before the end belongs to another copy.
        pattern = rf"{first}(?:(?!{first}).){{0,{self.longest}}}?{last}"
        for match in re.finditer(pattern, text, re.DOTALL | re.IGNORECASE):
            lacking = self.lacks and re.search(_spaced(self.lacks), match[0], re.IGNORECASE)
            if re.search(_spaced(self.needs), match[0], re.IGNORECASE) and not lacking:
                yield match[0]


def _spaced(pattern: str) -> str:
    return pattern.replace(" ", r"\s+")


_MIT = r"Permission is hereby granted, free of charge, to any person obtaining a copy"
_BSD = r"Redistribution and use in source and binary forms"
_BSD_END = r"POSSIBILITY OF SUCH DAMAGE\."
_ISC = r"Permission to use, copy, modify,? and/?(?:or)? ?distribute this software"
_GNU_END = r"END OF TERMS AND CONDITIONS"

_LICENCES = (
    _Licence("MIT", "MIT License", _MIT, r"DEALINGS IN THE SOFTWARE\.", 1200, r"above copyright"),
    _Licence(
        "MIT-0",
        "MIT No Attribution",
        _MIT,
        r"DEALINGS IN THE SOFTWARE\.",
        1000,
        lacks=r"above copyright|shall be included",
    ),
    _Licence(
        "BSD-3-Clause", 'BSD 3-Clause "New" or "Revised" License', _BSD, _BSD_END, 1800, "endorse"
    ),
    _Licence(
        "BSD-2-Clause",
        'BSD 2-Clause "Simplified" License',
        _BSD,
        _BSD_END,
        1500,
        lacks="endorse|advertising|views and conclusions",
    ),
    _Licence("ISC", "ISC License", _ISC, r"PERFORMANCE OF THIS SOFTWARE\.", 900, "above copyright"),
    _Licence(
        "0BSD",
        "BSD Zero Clause License",
        _ISC,
        r"PERFORMANCE OF THIS SOFTWARE\.",
        900,
        lacks="above copyright",
    ),
    _Licence(
        "Apache-2.0",
        "Apache License 2.0",
        r"Apache License Version 2\.0, January 2004",
        _GNU_END,
        12000,
    ),
    _Licence(
        "MPL-2.0",
        "Mozilla Public License 2.0",
        r"Mozilla Public License,? Version 2\.0 (?:=+ )?1\. Definitions",
        r"defined by the Mozilla Public License, v\. 2\.0\.",
        20000,
    ),
    _Licence(
        "PSF-2.0",
        "Python Software Foundation License 2.0",
        r"1\. This LICENSE AGREEMENT is between the Python Software Foundation",
        r"agrees to be bound by the terms and conditions of this License Agreement\.",
        4000,
    ),
    _Licence(
        "Zlib",
        "zlib License",
        r"This software is provided 'as-is', without any express",
        r"removed or altered from any source distribution\.",
        1200,
    ),
    _Licence(
        "Unlicense",
        "The Unlicense",
        r"This is free and unencumbered software",
        r"DEALINGS IN THE SOFTWARE\.",
        1500,
    ),
    _Licence(
        "BSL-1.0",
        "Boost Software License 1.0",
        r"Boost Software License - Version 1\.0",
        r"DEALINGS IN THE SOFTWARE\.",
        1800,
    ),
    _Licence(
        "CC0-1.0",
        "Creative Commons Zero v1.0 Universal",
        r"CC0 1\.0 Universal",
        r"with respect to this CC0 or use of the Work\.",
        9000,
        "Statement of Purpose",
    ),
    _Licence(
        "GPL-2.0-only",
        "GNU General Public License v2.0",
        r"GNU GENERAL PUBLIC LICENSE Version 2, June 1991",
        _GNU_END,
        20000,
    ),
    _Licence(
        "GPL-3.0-only",
        "GNU General Public License v3.0",
        r"GNU GENERAL PUBLIC LICENSE Version 3, 29 June 2007",
        _GNU_END,
        40000,
    ),
    _Licence(
        "LGPL-2.1-only",
        "GNU Lesser General Public License v2.1",
        r"GNU LESSER GENERAL PUBLIC LICENSE Version 2\.1, February 1999",
        _GNU_END,
        30000,
    ),
    _Licence(
        "LGPL-3.0-only",
        "GNU Lesser General Public License v3.0",
        r"GNU LESSER GENERAL PUBLIC LICENSE Version 3, 29 June 2007",
        r"permanent authorization for you to choose that version for the Library\.",
        10000,
    ),
)


def licence_texts() -> Iterator[Document]:
    """Yield one document per recognised licence, in order of the SPDX identifier.

    The texts are those of the distributions installed in this interpreter and, where it exists,
    of `SYSTEM_FOLDER`; lines are joined to paragraphs. Which licences are found depends on what
    is installed. Licence texts may be copied verbatim; they are no legal advice.
    """
    variants: dict[str, Counter[str]] = {licence.spdx: Counter() for licence in _LICENCES}
    for text in _texts():
        for licence in _LICENCES:
            variants[licence.spdx].update(licence.find(text))
    for licence in sorted(_LICENCES, key=lambda licence: licence.spdx):
        if variants[licence.spdx]:
            yield _document(licence, variants[licence.spdx])


def _document(licence: _Licence, variants: Counter[str]) -> Document:
    # Of equally frequent variants the first in the alphabet, so that a rebuild changes nothing.
    text = min(variants, key=lambda variant: (-variants[variant], variant))
    return Document(
        id=licence.spdx,
        title=f"{licence.name} ({licence.spdx})",
        text=text,
        url=f"https://spdx.org/licenses/{licence.spdx}.html",
        license="verbatim copying permitted",
        source=f"{variants.total()} copies in installed software",
    )


def _texts() -> Iterator[str]:
    seen: set[str] = set()
    for path in _paths():
        if path.is_file() and path.stat().st_size <= _LARGEST_FILE:
            text = _paragraphs(path.read_text(encoding="utf-8", errors="replace"))
            if text not in seen:
                seen.add(text)
                yield text


def _paths() -> Iterator[Path]:
    for distribution in distributions():
        for file in distribution.files or ():
            if _LICENCE_FILE.search(file.name) and not _CODE_FILE.search(file.name):
                yield Path(str(file.locate()))
    if SYSTEM_FOLDER.is_dir():
        yield from sorted(path for path in SYSTEM_FOLDER.iterdir() if not path.is_symlink())


def _paragraphs(text: str) -> str:
    lines = [_MARGIN.sub("", line).rstrip() for line in text.replace("\0", "").splitlines()]
    paragraphs = re.split(r"\n{2,}", "\n".join(lines).strip("\n"))
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
