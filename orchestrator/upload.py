"""Uploads: a multipart form or a JSON body as files and documents for a collection."""

from __future__ import annotations

import asyncio
from typing import Any

from fastapi import Request
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from orchestrator.collection_wire import DocumentInput, DocumentsRequest, UploadLabels
from orchestrator.errands import Ingest, Upload
from orchestrator.errors import InvalidRequest, from_validation
from retrieval.document import Document, TextFormat
from retrieval.errors import InvalidDocument
from retrieval.labels import Labels

FILES = "files"
"""The field of a form that holds the files."""

_JSON = "application/json"
_FIELDS: dict[str, dict[str, Any]] = {
    FILES: {"type": "array", "items": {"type": "string", "format": "binary"}},
    "license": {"type": "string"},
    "lang": {"type": "string"},
    "metadata": {"type": "string", "description": "A JSON object."},
    "base_url": {"type": "string"},
}
_FORM = {"type": "object", "required": [FILES], "properties": _FIELDS}


def upload_schema() -> dict[str, Any]:
    """What OpenAPI says of the body."""
    body = DocumentsRequest.model_json_schema()
    body["properties"]["documents"]["items"] = body.pop("$defs")["DocumentInput"]
    content = {_JSON: {"schema": body}, "multipart/form-data": {"schema": _FORM}}
    return {"requestBody": {"required": True, "content": content}}


async def read_upload(http: Request, collection: str, most_files: int) -> Ingest:
    """Read the body of an upload.

    Raises:
        InvalidRequest: it cannot be read, or names what does not exist.
    """
    kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == _JSON:
        # Checking tens of megabytes takes seconds, in which the event loop serves others.
        return await asyncio.to_thread(_of_json, await http.body(), collection)
    return await _of_form(http, collection, most_files)


def _of_json(body: bytes, collection: str) -> Ingest:
    try:
        asked = DocumentsRequest.model_validate_json(body)
    except ValidationError as error:
        raise from_validation(error) from error
    documents = [_document(n, given) for n, given in enumerate(asked.documents)]
    return Ingest(collection, documents=tuple(documents))


def _document(number: int, given: DocumentInput) -> Document:
    fields = given.model_dump()
    try:
        return Document(**fields | {"format": TextFormat(given.format)})
    except InvalidDocument as error:
        raise InvalidRequest(str(error), param=f"documents[{number}]") from error


async def _of_form(http: Request, collection: str, most_files: int) -> Ingest:
    try:
        form = await http.form(max_files=most_files, max_fields=32)
    except HTTPException as error:
        raise InvalidRequest(f"The form cannot be read: {error.detail}") from error
    try:
        foreign = sorted(set(form) - set(_FIELDS))
        if foreign:
            message = f"`{foreign[0]}` is not a known field. Allowed: {', '.join(_FIELDS)}."
            raise InvalidRequest(message, param=foreign[0])
        files = [part for part in form.getlist(FILES) if isinstance(part, UploadFile)]
        if not files:
            raise InvalidRequest(f"The form has no file in its field `{FILES}`.", param=FILES)
        uploads = [
            Upload(file.filename or "", await file.read(), file.content_type or "")
            for file in files
        ]
        return Ingest(collection, tuple(uploads), labels=_labels(dict(form)))
    finally:
        await form.close()


def _labels(form: dict[str, Any]) -> Labels:
    said = {name: form[name] for name in UploadLabels.model_fields if name in form}
    try:
        if "metadata" in said:
            said["metadata"] = from_json(str(said["metadata"]))
        checked = UploadLabels.model_validate(said)
        return Labels(**checked.model_dump())
    except ValidationError as error:
        raise from_validation(error) from error
    except InvalidDocument as error:
        param = "lang" if "language tag" in str(error) else "metadata"
        raise InvalidRequest(str(error), param=param) from error
    except ValueError as error:
        raise InvalidRequest(
            f"`metadata` is not a JSON object: {error}.", param="metadata"
        ) from error
