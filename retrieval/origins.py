"""The files that the documents of a collection came from, as its SQLite file remembers them."""

from __future__ import annotations

import sqlite3


class Origins:
    """The table `files`. Writing methods are called within `Store.writing`.

    A file is known by the folder that was added, `root`, and its path below it; what came without
    a folder, by upload, has the root "".
    """

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def state(self, root: str, path: str) -> tuple[str, str] | None:
        """Return hash and recipe of the file when all of it was last added, None if it never was.

        The recipe stands for how it was read.
        """
        found = self._connection.execute(
            "SELECT sha256, recipe FROM files WHERE root = ? AND path = ? AND sha256 != ''",
            (root, path),
        ).fetchone()
        return None if found is None else (found[0], found[1])

    def open(self, root: str, path: str) -> int:
        """Return the key of a file that is being added, and so is not all in from now on."""
        return int(
            self._connection.execute(
                "INSERT INTO files (root, path) VALUES (?, ?) "
                "ON CONFLICT (root, path) DO UPDATE SET sha256 = '' RETURNING key",
                (root, path),
            ).fetchone()[0]
        )

    def complete(self, key: int, sha256: str, recipe: str) -> None:
        """Note that all documents of the file are in."""
        self._connection.execute(
            "UPDATE files SET sha256 = ?, recipe = ? WHERE key = ?", (sha256, recipe, key)
        )

    def documents(self, key: int) -> list[str]:
        """Return the ids of the documents that came from the file."""
        rows = self._connection.execute("SELECT id FROM documents WHERE origin = ?", (key,))
        return [row[0] for row in rows]

    def held(self, root: str, path: str) -> set[str]:
        """Return the ids of the documents that came from a file, none where it is not known."""
        rows = self._connection.execute(
            "SELECT id FROM documents WHERE origin = "
            "(SELECT key FROM files WHERE root = ? AND path = ?)",
            (root, path),
        )
        return {row[0] for row in rows}

    def owner(self, document_id: str) -> tuple[str, str] | None:
        """Return root and path of the file that a document came from, if it came from one."""
        found = self._connection.execute(
            "SELECT f.root, f.path FROM documents d JOIN files f ON f.key = d.origin "
            "WHERE d.id = ?",
            (document_id,),
        ).fetchone()
        return None if found is None else (found[0], found[1])

    def below(self, root: str) -> list[tuple[int, str]]:
        """Return key and path of every file that was added from the folder `root`."""
        rows = self._connection.execute(
            "SELECT key, path FROM files WHERE root = ? ORDER BY path", (root,)
        )
        return [(row[0], row[1]) for row in rows]

    def forget(self, key: int) -> None:
        """Remove a file whose documents are removed."""
        self._connection.execute("DELETE FROM files WHERE key = ?", (key,))
