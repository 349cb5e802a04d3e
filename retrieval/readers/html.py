"""HTML as Markdown: headings, paragraphs, lists, tables and code; no scripts, no navigation.

What an element hides by its own attributes (`hidden`, `aria-hidden`, `style`) is left out: orders
to a language model are put there. Style sheets are not applied, so what they hide is read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

from retrieval.document import TextFormat, is_language
from retrieval.original import Original
from retrieval.readers.content import Content
from retrieval.readers.encoding import decode
from retrieval.readers.markdown_writer import MarkdownWriter

if TYPE_CHECKING:
    from lxml.etree import _Element

_DROPPED = frozenset(
    """
    aside audio button canvas dialog embed footer form head iframe input map menu nav noscript
    object option picture script select style svg template textarea video
    """.split()
)
_HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
_CHARSET = re.compile(rb"""charset\s*=\s*["']?\s*([A-Za-z0-9_.:-]{2,40})""", re.IGNORECASE)
_DECLARED_WITHIN = 4096


def read_html(original: Original) -> Iterator[Content]:
    """Yield a page as Markdown, with its title and language."""
    from lxml import etree, html

    data = original.read()
    text = decode(original, data, _declared(data))
    parser = html.HTMLParser(
        encoding="utf-8", remove_comments=True, remove_pis=True, huge_tree=True
    )
    try:
        page = html.document_fromstring(text.encode("utf-8"), parser=parser)
    except (etree.LxmlError, ValueError) as error:
        raise original.unreadable(f"cannot be read as HTML: {error}") from error
    # The parser stops at its limits and returns what it has, without an exception.
    if any(fault.type_name == "ERR_RESOURCE_LIMIT" for fault in parser.error_log):
        raise original.unreadable("is nested too deeply to be read whole")
    writer = MarkdownWriter()
    _walk(_main(page), writer)
    yield Content(
        writer.text(),
        TextFormat.MARKDOWN,
        title=_title(page) or writer.first_heading,
        lang=_language(page),
    )


def _declared(data: bytes) -> list[str]:
    found = _CHARSET.search(data, 0, _DECLARED_WITHIN)
    name = found[1].decode("ascii").lower() if found else "utf-8"
    # ISO-2022 is ASCII to whoever does not know; of the others what is UTF-8 is hardly theirs.
    return [name] if name.startswith("iso-2022") else ["utf-8", name]


def _main(page: _Element) -> _Element:
    """The part of the page that is about its subject, if the page says which that is."""
    for path in (".//main", './/*[@role="main"]', ".//article"):
        found = page.findall(path)
        if len(found) == 1:
            return found[0]
    body = page.find("body")
    return page if body is None else body


def _title(page: _Element) -> str:
    return " ".join((page.findtext(".//head/title") or "").split())


def _language(page: _Element) -> str:
    said = (page.get("lang") or page.get("xml:lang") or "").strip()
    return said if is_language(said) else ""


def _walk(root: _Element, writer: MarkdownWriter) -> None:
    from lxml import etree

    walk = etree.iterwalk(root, events=("start", "end"))
    skipped: _Element | None = None
    for event, element in walk:
        if event == "start" and skipped is None and _is_unseen(element):
            skipped = element
            walk.skip_subtree()
        elif event == "start" and skipped is None:
            writer.open(str(element.tag), str(element.get("class") or ""))
            writer.write(element.text or "")
        elif event == "end":
            if skipped is None:
                writer.close(str(element.tag))
            elif element is skipped:
                skipped = None
            if element is not root and skipped is None:
                writer.write(element.tail or "")


def _is_unseen(element: _Element) -> bool:
    return (
        element.tag in _DROPPED
        or element.get("hidden") is not None
        or element.get("aria-hidden") == "true"
        or _HIDDEN.search(element.get("style") or "") is not None
    )
