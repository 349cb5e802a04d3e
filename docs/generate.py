"""Write the generated parts of the documents from the code, or check that they are up to date.

    python docs/generate.py [--check]

A generated part stands between `<!-- generated: NAME -->` and `<!-- end generated -->`. Keys, types
and defaults come from the pydantic models, errors from their classes; what a key means is written
in `meanings.yaml`, and a key without meaning, or a meaning without key, is an error.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent

_BLOCK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end generated -->)", re.DOTALL)

Meanings = Mapping[str, Mapping[str, str]]


class MeaningError(ValueError):
    """`meanings.yaml` and the code do not name the same keys."""


def render(text: str) -> str:
    """The document with all its generated parts written anew.

    Raises:
        MeaningError: a key lacks its meaning, or a meaning its key.
        KeyError: the text names a part that does not exist.
    """
    return _BLOCK.sub(lambda found: f"{found[1]}\n{PARTS[found[2]]()}\n\n{found[3]}", text)


def documents() -> list[Path]:
    """The documents that may hold generated parts."""
    return [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]


def main(arguments: list[str]) -> int:
    """Rewrite what is out of date; with `--check` only name it and return 1."""
    stale = []
    for path in documents():
        text = path.read_text(encoding="utf-8")
        fresh = render(text)
        if fresh != text:
            stale.append(path)
            if "--check" not in arguments:
                path.write_text(fresh, encoding="utf-8")
    for path in stale:
        sys.stdout.write(f"{path.relative_to(ROOT)}\n")
    return int(bool(stale) and "--check" in arguments)


def _config() -> str:
    from orchestrator.config import Config

    places: dict[type[BaseModel], list[str]] = {}
    for where, model in _sections(Config, ""):
        places.setdefault(model, []).append(where)
    parts = []
    for model, found in places.items():
        first, *others = found
        parts.append(f"## `{first}`" if first else "## The file")
        if others:
            parts.append("The same keys stand at " + ", ".join(f"`{o}`" for o in others) + ".")
        parts.append(_keys(model, places))
    return "\n\n".join(parts)


def _sections(model: type[BaseModel], where: str) -> Iterator[tuple[str, type[BaseModel]]]:
    yield where, model
    for name, field in model.model_fields.items():
        inner = _model_of(field.annotation)
        if inner is not None:
            several = getattr(field.annotation, "__origin__", None) is dict
            path = f"{where}.{name}".removeprefix(".") + (".NAME" if several else "")
            yield from _sections(inner, path)


def _model_of(annotation: Any) -> type[BaseModel] | None:  # noqa: ANN401
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    inner = (_model_of(part) for part in get_args(annotation))
    return next((model for model in inner if model), None)


def _keys(model: type[BaseModel], places: Mapping[type[BaseModel], list[str]] | None = None) -> str:
    meanings = _meanings(model)
    schema = model.model_json_schema()
    rows = [["key", "allowed", "default", "meaning"]]
    for name, field in model.model_fields.items():
        inner = _model_of(field.annotation)
        if places and inner in places:
            place = places[inner][0]
            allowed = f"[`{place}`](#{slug(place)})"
        else:
            allowed = _allowed(schema["properties"][name], schema.get("$defs", {}))
        rows.append([f"`{name}`", allowed, _default(field), meanings[name]])
    return _table(rows)


def _meanings(model: type[BaseModel]) -> Mapping[str, str]:
    written: Meanings = yaml.safe_load((DOCS / "meanings.yaml").read_text(encoding="utf-8"))
    found = written.get(model.__name__, {})
    wrong = set(found) ^ set(model.model_fields)
    if wrong:
        raise MeaningError(f"meanings.yaml, {model.__name__}: {', '.join(sorted(wrong))}")
    return found


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        value = value.model_dump(exclude_unset=True)
        if not value:
            return "its defaults"
    if isinstance(value, dict):
        value = {key: _plain(part) for key, part in value.items()}
    if isinstance(value, Enum):
        value = value.value
    shown = yaml.safe_dump(value, default_flow_style=True, width=1000)
    return f"`{shown.removesuffix('...' + chr(10)).strip()}`"


def _plain(value: object) -> object:
    return value.model_dump(exclude_unset=True) if isinstance(value, BaseModel) else value


def _allowed(schema: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    if "$ref" in schema:
        return _allowed(parts[schema["$ref"].rsplit("/", 1)[-1]], parts)
    choices = schema.get("anyOf") or schema.get("oneOf")
    if choices:
        return " or ".join(dict.fromkeys(_allowed(choice, parts) for choice in choices))
    if "enum" in schema or "const" in schema:
        values = schema.get("enum", [schema.get("const")])
        return ", ".join(f"`{value}`" for value in values)
    return _SHAPES[schema.get("type", "any")](schema, parts)


def _number(schema: Mapping[str, Any], _parts: Mapping[str, Any]) -> str:
    words = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]:g}" for key, sign in words.items() if key in schema]
    kind = "whole number" if schema["type"] == "integer" else "number"
    # The bounds of a seed are those of a 64-bit integer.
    return kind if any("e+" in bound for bound in bounds) else " ".join([kind, ", ".join(bounds)])


def _object(schema: Mapping[str, Any], parts: Mapping[str, Any]) -> str:
    values = schema.get("additionalProperties")
    if isinstance(values, Mapping):
        return f"map of names to {_allowed(values, parts)}"
    return "object"


_SHAPES: Mapping[str, Callable[[Mapping[str, Any], Mapping[str, Any]], str]] = {
    "any": lambda _schema, _parts: "any JSON",
    "array": lambda schema, parts: f"list of {_allowed(schema['items'], parts)}",
    "boolean": lambda _schema, _parts: "`true`, `false`",
    "integer": _number,
    "null": lambda _schema, _parts: "null",
    "number": _number,
    "object": _object,
    "string": lambda schema, _parts: (
        f"text, `{schema['pattern']}`" if "pattern" in schema else "text"
    ),
}


def _fields(name: str) -> Callable[[], str]:
    def part() -> str:
        from orchestrator import wire

        return _keys(getattr(wire, name))

    return part


def _response_fields(name: str) -> Callable[[], str]:
    def part() -> str:
        from orchestrator import wire

        model: type[BaseModel] = getattr(wire, name)
        schema, meanings = model.model_json_schema(), _meanings(model)
        rows = [["field", "type", "meaning"]]
        for field, text in meanings.items():
            kind = _allowed(schema["properties"][field], schema.get("$defs", {}))
            rows.append([f"`{field}`", kind, text])
        return _table(rows)

    return part


def _refused() -> str:
    from orchestrator.request import ChatRequest, RoutingOptions

    rows = [["key", "accepted value that asks for nothing"]]
    for prefix, model in (("", ChatRequest), ("routing.", RoutingOptions)):
        for key, harmless in model.not_served.items():
            accepted = "null" if harmless is None else f"null or `{_json(harmless)}`"
            rows.append([f"`{prefix}{key}`", accepted])
    return _table(rows)


def _json(value: Any) -> str:  # noqa: ANN401
    import json

    return json.dumps(value)


def _errors() -> str:
    from orchestrator.errors import SERVED

    rows = [["class", "status", "`type`", "`code`", "meaning"]]
    for kind in SERVED:
        meaning = (kind.__doc__ or "").strip().splitlines()[0]
        code = f"`{kind.code}`"
        rows.append([f"`{kind.__name__}`", str(kind.status), f"`{kind.type}`", code, meaning])
    return _table(rows)


def _table(rows: list[list[str]]) -> str:
    cells = [[cell.replace("|", "\\|") for cell in row] for row in rows]
    head, *body = ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join([head, "|" + "---|" * len(rows[0]), *body])


def slug(heading: str) -> str:
    """The anchor that a Markdown heading gets on common code hosts."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


PARTS: Mapping[str, Callable[[], str]] = {
    "config": _config,
    "chat-request": _fields("ChatRequest"),
    "embeddings-request": _fields("EmbeddingsRequest"),
    "errors": _errors,
    "feedback": _response_fields("Feedback"),
    "feedback-request": _fields("FeedbackRequest"),
    "not-served": _refused,
    "routing-options": _fields("RoutingOptions"),
    "routing-report": _response_fields("RoutingReport"),
    "url-citation": _response_fields("UrlCitation"),
}


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))
