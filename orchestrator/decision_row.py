"""A logged decision as columns of a table, and back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from router.draw import Draw
from router.logged_decision import LoggedDecision, Opinion, Read
from router.overrides import Overrides
from router.provenance import LoggedSource, Provenance
from router.situation import Situation

Columns = Mapping[str, Any]

_DIGITS = 9


def to_columns(logged: LoggedDecision) -> dict[str, object]:
    """The row of a decision without an opinion."""
    read = logged.read
    return {
        "id": logged.id,
        "tenant": logged.tenant,
        "at": logged.at,
        "version": logged.router_version,
        "confidence": logged.confidence,
        "body": json.dumps(_body(logged), ensure_ascii=False),
        "features": None if read is None else read.packed,
        "text": logged.text,
        "latency": logged.latency,
        "stood_in": int(logged.stood_in),
    }


def from_columns(row: Columns) -> LoggedDecision:
    """The decision of a row.

    Raises:
        ValueError, KeyError, TypeError: the row is not what `to_columns` wrote.
    """
    body = json.loads(row["body"])
    draw = Draw(**{**body["draw"], "policy": tuple(body["draw"]["policy"])})
    experts = body["overrides"].get("experts")
    named = {"experts": None if experts is None else tuple(experts)}
    return LoggedDecision(
        id=row["id"],
        tenant=row["tenant"],
        kind=body["kind"],
        at=row["at"],
        key=body["key"],
        router_version=row["version"],
        probabilities=body["probabilities"],
        weights=body["weights"],
        draw=draw,
        abstained=body["abstained"],
        overrides=Overrides(**{**body["overrides"], **named}),
        situation=_situation(body["situation"]),
        read=_read(body["read"], row["features"]),
        text=row["text"],
        latency=row["latency"],
        stood_in=bool(row["stood_in"]),
        opinion=_opinion(row),
        provenance=_provenance(body.get("provenance")),
    )


def provenance_body(provenance: Provenance | None) -> str:
    """What an answer stood on as JSON, "null" where that is not known."""
    return json.dumps(None if provenance is None else asdict(provenance), ensure_ascii=False)


def _body(logged: LoggedDecision) -> dict[str, object]:
    read = logged.read
    return {
        "kind": logged.kind,
        "key": logged.key,
        "probabilities": {n: round(p, _DIGITS) for n, p in logged.probabilities.items()},
        "weights": dict(logged.weights),
        "draw": asdict(logged.draw),
        "abstained": logged.abstained,
        "overrides": _given(asdict(logged.overrides)),
        "situation": _given(asdict(logged.situation)),
        "read": None
        if read is None
        else {
            "shape": list(read.shape),
            "version": read.version,
            "encoder": read.encoder,
            "dimensions": read.dimensions,
            "said": read.said,
        },
    }


def _situation(values: Mapping[str, Any]) -> Situation:
    return Situation(**{**values, "attached": tuple(values.get("attached", ()))})


def _given(values: Mapping[str, Any]) -> dict[str, Any]:
    """What says something: a name whose value is 0 counts as left out of a situation."""
    kept = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and key != "weights":
            value = {name: number for name, number in value.items() if number}
        if value is not None and value not in ({}, ()):
            kept[key] = value
    return kept


def _read(described: Mapping[str, Any] | None, packed: bytes | None) -> Read | None:
    if described is None or packed is None:
        return None
    return Read(packed=packed, **{**described, "shape": tuple(described["shape"])})


def _provenance(kept: Mapping[str, Any] | None) -> Provenance | None:
    if kept is None:
        return None
    sources = tuple(LoggedSource(**source) for source in kept["sources"])
    return Provenance(**{**kept, "sources": sources})


def _opinion(row: Columns) -> Opinion | None:
    if row["opinion_at"] is None:
        return None
    return Opinion(row["score"], row["expert"], row["comment"], row["opinion_at"])
