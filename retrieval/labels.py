"""What a user says about all files of an ingestion: licence, language, metadata, address."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from urllib.parse import quote

from retrieval.document import MAX_TITLE, Document, Scalar, checked_metadata, is_language
from retrieval.errors import InvalidDocument
from retrieval.original import Original
from retrieval.readers.content import Content

READERS_VERSION = 3
"""Raised when readers make other documents of the same file, so that files are read again."""


@dataclass(frozen=True)
class Labels:
    """Said of every document that does not say it itself. `base_url` goes before the file's path.

    Raises `InvalidDocument` for a language or metadata that cannot be stored.
    """

    license: str = ""
    lang: str = ""
    metadata: Mapping[str, Scalar] = field(default_factory=dict)
    base_url: str = ""

    def __post_init__(self) -> None:
        checked_metadata(self.metadata)
        if self.lang and not is_language(self.lang):
            raise InvalidDocument(
                f"{self.lang!r} is no language tag; one like 'en' or 'pt-BR' was expected."
            )

    @property
    def recipe(self) -> str:
        """Stands for how a file becomes documents: the same bytes give the same documents."""
        said = [
            *(READERS_VERSION, self.license, self.lang, self.base_url),
            dict(sorted(self.metadata.items())),
        ]
        return hashlib.sha256(json.dumps(said).encode()).hexdigest()[:16]

    def document(self, original: Original, content: Content, sha256: str) -> Document:
        """Make the document of what was found in a file with this hash.

        Raises `InvalidDocument`.
        """
        name = original.name
        address = self.base_url + quote(name) if self.base_url else ""
        title = content.title or ("" if content.id else PurePosixPath(name).stem)
        return Document(
            id=content.id or name,
            title=title[:MAX_TITLE],
            text=content.text,
            url=content.url or ("" if content.id else address),
            license=content.license or self.license,
            source=content.source or ("" if content.id else name),
            format=content.format,
            lang=content.lang or self.lang,
            metadata={**self.metadata, **content.metadata},
            file=name,
            pages=content.pages,
            sha256=content.sha256 or sha256,
        )
