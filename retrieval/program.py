"""The structure of a program: its functions and classes, by the grammars of tree-sitter.

Grammars are compiled into their wheels; nothing is fetched at run time. A language without one
here is cut at blank lines before lines that are not indented.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from retrieval.block import Block, BlockKind
from retrieval.document import TextFormat
from retrieval.outline import lines

if TYPE_CHECKING:
    from tree_sitter import Language, Node

LARGEST_PARSED = 1_000_000
"""Characters of a program that is parsed; what is longer was not written by people."""

_DEEPEST = 8
_DEEPEST_UNNAMED = 32
_GRAMMARS = {
    TextFormat.C: ("tree_sitter_c", "language"),
    TextFormat.CPP: ("tree_sitter_cpp", "language"),
    TextFormat.C_SHARP: ("tree_sitter_c_sharp", "language"),
    TextFormat.GO: ("tree_sitter_go", "language"),
    TextFormat.JAVA: ("tree_sitter_java", "language"),
    TextFormat.JAVASCRIPT: ("tree_sitter_javascript", "language"),
    TextFormat.PHP: ("tree_sitter_php", "language_php"),
    TextFormat.PYTHON: ("tree_sitter_python", "language"),
    TextFormat.RUBY: ("tree_sitter_ruby", "language"),
    TextFormat.RUST: ("tree_sitter_rust", "language"),
    TextFormat.TSX: ("tree_sitter_typescript", "language_tsx"),
    TextFormat.TYPESCRIPT: ("tree_sitter_typescript", "language_typescript"),
}
_DEFINITIONS = frozenset(
    """
    abstract_class_declaration annotation_type_declaration class class_declaration
    class_definition class_specifier constructor_declaration decorated_definition
    delegate_declaration enum_declaration enum_item enum_specifier export_statement
    file_scoped_namespace_declaration function_declaration function_definition function_item
    generator_function_declaration impl_item interface_declaration internal_module
    linkage_specification macro_definition method method_declaration method_definition mod_item
    module namespace_declaration namespace_definition operator_declaration property_declaration
    record_declaration singleton_method struct_declaration struct_item struct_specifier
    template_declaration trait_declaration trait_item type_alias_declaration type_declaration
    union_item
    """.split()
)
# These hold a definition and have no name of their own.
_WRAPPERS = ("definition", "declaration")
_ATTACHED = frozenset(
    "comment line_comment block_comment attribute_item attribute_list decorator".split()
)
_TELLING = re.compile(r"\w")


@dataclass(frozen=True, slots=True)
class _Part:
    """A span in bytes, and the names of the definitions around it."""

    start: int
    end: int
    names: tuple[str, ...]
    opens: bool = False


def definitions(text: str, start: int, end: int, format: TextFormat, limit: int) -> Iterator[Block]:
    """Yield the blocks of a program: definitions that fit into `limit` whole, larger ones in parts.

    The heading of a block is the path of names around it.
    """
    language = _language(format) if end - start <= LARGEST_PARSED else None
    if language is None:
        yield from _unindented(text, start, end)
        return
    from tree_sitter import Parser

    source = text[start:end].encode("utf-8")
    root = Parser(language).parse(source).root_node
    offsets = _offsets(source)
    opened: tuple[str, ...] = ()
    for part in _Cutter(source, limit).parts(root.children, (), 0, len(source)):
        opens = part.opens or part.names != opened
        opened = part.names
        yield Block(
            start + int(offsets[part.start]),
            start + int(offsets[part.end]),
            part.names,
            BlockKind.CODE,
            opens=opens,
        )


@cache
def _language(format: TextFormat) -> Language | None:
    if format not in _GRAMMARS:
        return None
    from tree_sitter import Language

    module, function = _GRAMMARS[format]
    return Language(getattr(importlib.import_module(module), function)())


def _offsets(source: bytes) -> npt.NDArray[np.int64]:
    """Characters before each byte: of shape [len(source) + 1]."""
    begins = (np.frombuffer(source, dtype=np.uint8) & 0xC0) != 0x80
    return np.concatenate([[0], np.cumsum(begins, dtype=np.int64)])


class _Cutter:
    """Cuts the children of a node; every byte between the given bounds is in one part."""

    def __init__(self, source: bytes, limit: int) -> None:
        self._source, self._limit = source, limit

    def parts(
        self, children: Sequence[Node], names: tuple[str, ...], start: int, end: int, depth: int = 0
    ) -> list[_Part]:
        found: list[_Part] = []
        position = start
        lead: int | None = None
        last_end = start
        for child in children:
            if child.type in _ATTACHED:
                if lead is None or self._is_parted(last_end, child.start_byte):
                    lead = child.start_byte
            elif _defines(child):
                begin = child.start_byte
                if lead is not None and not self._is_parted(last_end, begin):
                    begin = lead
                if self._tells(position, begin):
                    found.append(_Part(position, begin, names))
                else:
                    begin = position
                found += self._definition(child, names, begin, depth)
                position, lead = child.end_byte, None
            else:
                lead = None
            last_end = child.end_byte
        return self._closed(found, names, position, end)

    def _closed(
        self, found: list[_Part], names: tuple[str, ...], position: int, end: int
    ) -> list[_Part]:
        if found and not self._tells(position, end):
            found[-1] = replace(found[-1], end=end)
        elif position < end:
            found.append(_Part(position, end, names))
        return found

    def _definition(
        self, node: Node, names: tuple[str, ...], start: int, depth: int
    ) -> list[_Part]:
        inner = _unwrapped(node)
        name = _name(inner)
        path = (*names, name) if name else names
        whole = [_Part(start, node.end_byte, path, opens=bool(name))]
        body = inner.child_by_field_name("body") or inner
        if (
            node.end_byte - start <= self._limit
            or len(path) >= _DEEPEST
            or depth >= _DEEPEST_UNNAMED
            or not any(map(_defines, body.children))
        ):
            return whole
        # What stands before the body's first definition is the head: signature, docstring, fields.
        parts = self.parts(body.children, path, start, node.end_byte, depth + 1)
        return [replace(parts[0], opens=True), *parts[1:]]

    def _is_parted(self, start: int, end: int) -> bool:
        return self._source.count(b"\n", start, end) > 1

    def _tells(self, start: int, end: int) -> bool:
        between = self._source[start:end].decode("utf-8", "replace")
        return _TELLING.search(between) is not None


def _defines(node: Node) -> bool:
    # Keywords are nodes as well, without a name: "class", "module".
    return node.is_named and node.type in _DEFINITIONS


def _unwrapped(node: Node) -> Node:
    for field in _WRAPPERS:
        inner = node.child_by_field_name(field)
        if inner is not None:
            return inner
    if node.type == "template_declaration" and node.named_child_count:
        return node.named_children[-1]
    return node


def _name(node: Node) -> str:
    """The name of a definition, "" where it has none: C hides it in nested declarators."""
    found = node.child_by_field_name("name") or node.child_by_field_name("type")
    declared = node.child_by_field_name("declarator")
    while declared is not None:
        found, declared = declared, declared.child_by_field_name("declarator")
    if node.type == "type_declaration" and node.named_child_count:
        found = node.named_children[0].child_by_field_name("name")
    if found is None or found.text is None:
        return ""
    return " ".join(found.text.decode("utf-8", "replace").split())[:80]


def _unindented(text: str, start: int, end: int) -> Iterator[Block]:
    opened, after_blank = start, False
    for left, right in lines(text, start, end):
        if text[left:right].isspace():
            after_blank = True
            continue
        if after_blank and _TELLING.match(text, left) and left > opened:
            yield Block(opened, left, kind=BlockKind.CODE)
            opened = left
        after_blank = False
    if opened < end:
        yield Block(opened, end, kind=BlockKind.CODE)
