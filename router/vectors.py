"""Sentence vectors kept on disk, so that training again encodes nothing twice."""

import hashlib
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np

from router.features import Encoder, Vector

Progress = Callable[[str, int, int], None]


class VectorCache:
    """An encoder in front of which every vector is kept in one SQLite file.

    `name` is the encoder's: vectors of another encoder in the same file stay apart.
    """

    def __init__(self, path: Path, encoder: Encoder, name: str, batch: int = 128) -> None:
        self._path = path
        self._encoder = encoder
        self._name = name
        self._batch = batch
        path.parent.mkdir(parents=True, exist_ok=True)
        with closing(self._connect()) as database, database:
            database.execute(
                "CREATE TABLE IF NOT EXISTS vectors (key BLOB PRIMARY KEY, value BLOB)"
            )

    def encode(self, texts: Sequence[str], progress: Progress | None = None) -> Vector:
        """Return the vectors [n, d] of `texts`; what is new is encoded in batches and kept.

        `progress` is called with ("encode", done, total) after every batch.
        """
        keys = [self._key(text) for text in texts]
        with closing(self._connect()) as database:
            missing = self._missing(database, keys, texts)
            for start in range(0, len(missing), self._batch):
                part = missing[start : start + self._batch]
                self._store(database, part)
                if progress is not None:
                    progress("encode", len(texts) - len(missing) + start + len(part), len(texts))
            return np.stack([self._read(database, key) for key in keys])

    def __call__(self, texts: Sequence[str]) -> Vector:
        """Encode without progress, as an encoder does."""
        return self.encode(texts)

    def _connect(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path)

    def _key(self, text: str) -> bytes:
        content = f"{self._name}\0{text}".encode()
        return hashlib.blake2b(content, digest_size=16).digest()

    def _missing(
        self, database: sqlite3.Connection, keys: Sequence[bytes], texts: Sequence[str]
    ) -> list[tuple[bytes, str]]:
        known = {bytes(key) for (key,) in database.execute("SELECT key FROM vectors")}
        unique = {key: text for key, text in zip(keys, texts, strict=True) if key not in known}
        # Batches of like length waste no padding.
        return sorted(unique.items(), key=lambda item: len(item[1]))

    def _store(self, database: sqlite3.Connection, part: Sequence[tuple[bytes, str]]) -> None:
        vectors = np.asarray(self._encoder([text for _, text in part]), dtype="<f4")
        rows = [(key, vector.tobytes()) for (key, _), vector in zip(part, vectors, strict=True)]
        with database:
            database.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    def _read(self, database: sqlite3.Connection, key: bytes) -> Vector:
        found = database.execute("SELECT value FROM vectors WHERE key = ?", (key,)).fetchone()
        return np.frombuffer(found[0], dtype="<f4")
