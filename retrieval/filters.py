"""Filters on what is known of a document: language, licence, source, time, the user's metadata.

    {"lang": "de", "license": ["MIT", "BSD-3-Clause"], "metadata.year": {">=": 2020}}

All conditions must hold. A value asks for equality, a list for any of its values, and an object
for comparisons: `=`, `!=`, `<`, `<=`, `>`, `>=`, `in`, `not in`, `exists`. Values compare only
with values of their kind: a year that was stored as text is not above the number 2020.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from retrieval.errors import InvalidQuery

Scalar = str | int | float | bool
"""What a field holds."""

Filter = Mapping[str, object]
"""Conditions by field, as above."""

TEXT_FIELDS = ("lang", "license", "source", "file", "title", "url", "format", "sha256")
"""Columns of a document that hold text; the document's `id` is asked for as `document`."""

NUMBER_FIELDS = ("added",)
"""Columns that hold numbers; `added` is in seconds since 1970."""

MAX_CONDITIONS = 64
"""Values that one filter may compare with, all fields together."""

_METADATA = "metadata."
_KEY = re.compile(r"[\w.:@/ -]{1,64}")
_LARGEST = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Condition:
    """A filter as SQL over `documents d` with its parameters; empty SQL lets everything through."""

    sql: str
    values: tuple[Scalar, ...]


EVERYTHING = Condition("", ())
"""The condition that every passage meets."""


@dataclass(frozen=True, slots=True)
class _Field:
    name: str
    sql: str
    values: tuple[Scalar, ...]
    kinds: tuple[type, ...]


def condition(conditions: Filter | None) -> Condition:
    """Return a filter as SQL. Raises `InvalidQuery` naming the field and what is allowed."""
    parts: list[str] = []
    values: list[Scalar] = []
    compared = 0
    for name, wanted in (conditions or {}).items():
        field = _field(name)
        for operator, value in _comparisons(name, wanted):
            sql, bound = _compared(field, operator, value)
            parts.append(sql)
            values += bound
            compared += len(value) if isinstance(value, list | tuple) else 1
    if compared > MAX_CONDITIONS:
        raise InvalidQuery(f"A filter compares with {MAX_CONDITIONS} values at most.")
    return Condition(" AND ".join(parts), tuple(values))


def _field(name: str) -> _Field:
    if name == "document":
        return _Field(name, "d.id", (), (str,))
    if name in TEXT_FIELDS:
        return _Field(name, f"d.{name}", (), (str,))
    if name in NUMBER_FIELDS:
        return _Field(name, f"d.{name}", (), (int, float))
    key = name.removeprefix(_METADATA)
    if key != name and _KEY.fullmatch(key):
        return _Field(name, "json_extract(d.metadata, ?)", (f'$."{key}"',), (str, int, float, bool))
    known = ", ".join(("document", *TEXT_FIELDS, *NUMBER_FIELDS))
    raise InvalidQuery(f"There is no field {name!r} to filter by: use {known} or metadata.KEY.")


def _comparisons(name: str, wanted: object) -> Sequence[tuple[str, object]]:
    if isinstance(wanted, Mapping):
        if not wanted:
            raise InvalidQuery(f"The filter on {name!r} is empty: give it a comparison or a value.")
        return [(str(operator), value) for operator, value in wanted.items()]
    if isinstance(wanted, list | tuple):
        return [("in", wanted)]
    return [("=", wanted)]


def _compared(field: _Field, operator: str, value: object) -> tuple[str, list[Scalar]]:
    compare = _OPERATORS.get(operator)
    if compare is None:
        raise InvalidQuery(
            f"{operator!r} does not compare {field.name!r}: use one of {', '.join(_OPERATORS)}."
        )
    return compare(field, operator, value)


def _ordered(field: _Field, operator: str, value: object) -> tuple[str, list[Scalar]]:
    scalar = _scalar(field, value)
    if isinstance(scalar, bool):
        raise InvalidQuery(f"{field.name!r} cannot be {operator} {scalar}: compare with = or !=.")
    sql = f"({_is_kind(field, scalar)} AND {field.sql} {operator} ?)"
    return sql, [*field.values, *field.values, scalar]


def _equal(field: _Field, operator: str, value: object) -> tuple[str, list[Scalar]]:
    scalar = _scalar(field, value)
    sql = f"({_is_kind(field, scalar)} AND {field.sql} = ?)"
    values = [*field.values, *field.values, scalar]
    return (f"NOT coalesce({sql}, 0)" if operator == "!=" else sql), values


def _among(field: _Field, operator: str, value: object) -> tuple[str, list[Scalar]]:
    if not isinstance(value, list | tuple) or not value:
        raise InvalidQuery(f"The filter on {field.name!r} needs a list of values after {operator}.")
    each = [_equal(field, "=", one) for one in value]
    sql = "(" + " OR ".join(part for part, _ in each) + ")"
    bound = [scalar for _, values in each for scalar in values]
    return (f"NOT coalesce({sql}, 0)" if operator == "not in" else sql), bound


def _exists(field: _Field, operator: str, value: object) -> tuple[str, list[Scalar]]:
    if not isinstance(value, bool):
        raise InvalidQuery(f"'{operator}' of {field.name!r} is true or false.")
    there = f"coalesce({field.sql}, '') != ''"
    return (there if value else f"NOT {there}"), list(field.values)


_Compare = Callable[[_Field, str, object], tuple[str, list[Scalar]]]
_OPERATORS: dict[str, _Compare] = {
    **dict.fromkeys(("=", "!="), _equal),
    **dict.fromkeys(("<", "<=", ">", ">="), _ordered),
    **dict.fromkeys(("in", "not in"), _among),
    "exists": _exists,
}


def _scalar(field: _Field, value: object) -> Scalar:
    fits = isinstance(value, field.kinds) and (not isinstance(value, bool) or bool in field.kinds)
    if not fits or not isinstance(value, str | int | float):
        kinds = "text" if field.kinds == (str,) else "a number"
        kinds = "text, a number, true or false" if bool in field.kinds else kinds
        raise InvalidQuery(f"{field.name!r} is compared with {kinds}, not with {value!r}.")
    if isinstance(value, int) and abs(value) > _LARGEST:
        raise InvalidQuery(f"{value} is too large a number to filter {field.name!r} by.")
    if isinstance(value, str):
        _require_unicode(field, value)
    return value


def _require_unicode(field: _Field, value: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidQuery(f"The filter on {field.name!r} is not Unicode text.") from error


def _is_kind(field: _Field, scalar: Scalar) -> str:
    if not field.values:
        return "1"
    # What JSON calls true and false, SQLite hands out as 1 and 0.
    stored = field.sql.replace("json_extract", "json_type")
    if isinstance(scalar, bool):
        return f"{stored} IN ('true', 'false')"
    return f"{stored} = 'text'" if isinstance(scalar, str) else f"{stored} IN ('integer', 'real')"
