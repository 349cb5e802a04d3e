"""The registry: the versions of a router on disk, and the changes of which of them acts.

A folder with one folder a version, the lineup (`lineup.json`) and the history of its changes
(`history.jsonl`). Readers take no lock; writers take turns. Version 0 is the gate that the
configuration names; it lies elsewhere and is never written.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from filelock import FileLock, Timeout

from router.bars import Finding, judge, judge_labels
from router.gate import Gate
from router.history import History
from router.lineup import (
    LINEUP_FILE,
    ORIGIN,
    Change,
    Lineup,
    VersionError,
    check_name,
    check_share,
    read_lineup,
    sync_folder,
    write_lineup,
)
from router.standards import Standards
from router.version import Signature, Version, now, origin_version, read_version, stage

_LOCK = ".lock"
_STAGING, _REMOVED = ".staging", ".removed"
_PATIENCE = 60.0

Stamp = tuple[int, int, int] | None


class Refused(VersionError):
    """A version that breaks quality bars; `findings` has all that was looked at."""

    def __init__(self, name: str, findings: Sequence[Finding]) -> None:
        broken = [found.words for found in findings if not found.kept]
        super().__init__("\n  ".join([f"version {name} is not promoted:", *broken]))
        self.findings = tuple(findings)


_ANY = Standards()


class Registry:
    """The versions in a folder; `origin` is the gate's folder that version 0 stands for.

    The folder is made by the first change. Raises `VersionError` for what cannot be done.
    """

    def __init__(self, folder: Path, origin: Path) -> None:
        self.folder = folder
        self._origin = origin
        self._history = History(folder)

    def lineup(self) -> Lineup:
        """Who acts at this moment."""
        return read_lineup(self.folder)

    def stamp(self) -> Stamp:
        """What changes whenever the lineup does; None without a lineup. One call of the system."""
        try:
            found = os.stat(self.folder / LINEUP_FILE)
        except (FileNotFoundError, NotADirectoryError):
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def history(self) -> list[Change]:
        """All changes, oldest first."""
        return self._history.read(self.lineup().change)

    def names(self) -> list[str]:
        """The names of all versions, broken ones too; numbers first, in their order."""
        found = {ORIGIN}
        if self.folder.is_dir():
            found |= {path.name for path in self.folder.iterdir() if _is_version(path)}
        return sorted(found, key=lambda n: (not n.isdigit(), int(n) if n.isdigit() else 0, n))

    def version(self, name: str) -> Version:
        """A version as it is described; the gate is not loaded, but for version 0."""
        if check_name(name) == ORIGIN:
            return origin_version(self._origin)
        return read_version(name, self.folder / name)

    def gate(self, name: str) -> Gate:
        """The gate of a version, every file compared with its hash."""
        return self.version(name).gate()

    def acting(self) -> Gate:
        """The gate of the version that acts at this moment. Raises `VersionError`."""
        return self.gate(self.lineup().current)

    def add(
        self,
        source: Path,
        signature: Signature,
        *,
        name: str | None = None,
        report: Path | None = None,
    ) -> Version:
        """Copy a gate's folder into the registry, under the next number unless named.

        `report` is a JSON file with further figures, such as those of an evaluation.
        """
        with self._locked() as lineup:
            self._sweep()
            chosen = self._next_name() if name is None else check_name(name)
            target = self.folder / chosen
            if chosen == ORIGIN or target.exists():
                raise VersionError(f"version {chosen} is there already: choose another name.")
            stage(chosen, source, self.folder / _STAGING, signature, report)
            os.rename(self.folder / _STAGING, target)
            sync_folder(self.folder)
            self._commit(lineup, lineup, signature, "add", "-", chosen)
            return read_version(chosen, target)

    def promote(
        self, name: str, signature: Signature, standards: Standards, *, force: bool = False
    ) -> list[Finding]:
        """Let a version act. Its gate must be one that can be served, whatever `force` says.

        Returns what was found. Raises `Refused` where a bar is broken, unless `force`.
        """
        check_name(name)
        with self._locked() as lineup:
            if name == lineup.current:
                raise VersionError(f"version {name} acts already.")
            standards.require_usable(name, self.gate(name))
            findings = self.judge(name, standards)
            if not (force or all(found.kept for found in findings)):
                raise Refused(name, findings)
            self._commit(lineup, _acting(lineup, name), signature, "promote", lineup.current, name)
            return findings

    def judge(self, name: str, standards: Standards) -> list[Finding]:
        """What the standards say about a version, beside the one that acts."""
        version = self.version(name)
        try:
            acting = self.version(self.lineup().current)
        except VersionError as error:
            # A broken version must be replaceable, so it is no yardstick.
            nothing = Finding(True, f"compared with nothing: {error}")
            labels = judge_labels(version.labels, (), standards.experts)
            return [nothing, *labels, *judge(version.report, {}, standards.bars)]
        fits = version.dimensions == acting.dimensions
        words = f"sentence vectors: {version.dimensions} numbers, the acting version's "
        encoders = {version.encoder, acting.encoder}
        return [
            *judge_labels(version.labels, acting.labels, standards.experts, standards.disabled),
            Finding(fits, f"{words}{acting.dimensions}"),
            # Of many encoders the vectors have as many numbers, and mean something else.
            Finding(
                len(encoders) == 1 or "" in encoders,
                f"encoder: {version.encoder or 'not named'}, the acting version's "
                f"{acting.encoder or 'not named'}",
            ),
            *judge(version.report, acting.report, standards.bars),
        ]

    def rollback(self, signature: Signature) -> Lineup:
        """Let the previous version act again, without judging it; a second time undoes the first.

        Raises `VersionError` where there is none, or it cannot be loaded.
        """
        with self._locked() as lineup:
            if lineup.previous is None:
                raise VersionError("there is no previous version to go back to.")
            self.gate(lineup.previous)
            after = _acting(lineup, lineup.previous)
            self._commit(lineup, after, signature, "rollback", lineup.current, after.current)
            return after

    def shadow(self, name: str | None, signature: Signature, standards: Standards = _ANY) -> None:
        """Let a version decide beside the one that acts, without acting itself; None ends it."""
        with self._locked() as lineup:
            self._check_free(name, lineup, standards)
            after = replace(lineup, shadow=name)
            before = lineup.shadow or "-"
            self._commit(lineup, after, signature, "shadow", before, name or "-")

    def canary(
        self,
        name: str | None,
        share: float,
        signature: Signature,
        standards: Standards = _ANY,
    ) -> None:
        """Let a version act for a share of the traffic, above 0 and at most 1; None ends it."""
        with self._locked() as lineup:
            self._check_free(name, lineup, standards)
            part = 0.0 if name is None else check_share(share)
            after = replace(lineup, canary=name, share=part)
            self._commit(lineup, after, signature, "canary", _portion(lineup), _portion(after))

    def remove(self, name: str, signature: Signature) -> None:
        """Delete a version that has no role; as `previous` it is needed to roll back."""
        check_name(name)
        with self._locked() as lineup:
            roles = lineup.roles(name)
            if name == ORIGIN:
                raise VersionError("version 0 is the configuration's own and cannot be removed.")
            if roles:
                raise VersionError(
                    f"version {name} is {' and '.join(roles)} and cannot be removed: "
                    "give that role to another version first."
                )
            if not (self.folder / name).is_dir():
                raise VersionError(f"there is no version {name!r} to remove.")
            self._sweep()
            os.rename(self.folder / name, self.folder / _REMOVED)
            self._commit(lineup, lineup, signature, "remove", name, "-")
            self._sweep()

    @contextmanager
    def _locked(self) -> Iterator[Lineup]:
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / _LOCK, timeout=_PATIENCE)
        try:
            lock.acquire()
        except Timeout as error:
            raise VersionError(
                f"{self.folder}: another command has been changing it for {_PATIENCE:.0f} s."
            ) from error
        try:
            yield self.lineup()
        finally:
            lock.release()

    def _commit(
        self,
        old: Lineup,
        new: Lineup,
        signature: Signature,
        action: str,
        before: str,
        after: str,
    ) -> None:
        serial = old.change.serial + 1 if old.change else 1
        change = Change(serial, now(), signature.by, action, before, after, signature.why)
        self._history.settle(old.change)
        write_lineup(self.folder, replace(new, change=change))
        self._history.append(change)

    def _check_free(self, name: str | None, lineup: Lineup, standards: Standards) -> None:
        """A version that watches or acts for a share must be usable, and not act anyway."""
        if name is not None:
            if check_name(name) == lineup.current:
                raise VersionError(f"version {name} acts already: name another one.")
            standards.require_usable(name, self.gate(name))

    def _next_name(self) -> str:
        # A removed number is not given again: figures and logs that name it are still there.
        used = [*self.names(), *(c.after for c in self.history() if c.action == "add")]
        return str(max(int(name) for name in used if name.isdigit()) + 1)

    def _sweep(self) -> None:
        """Delete what a killed command left half made, or half deleted."""
        for leftover in (_STAGING, _REMOVED):
            if (self.folder / leftover).is_dir():
                shutil.rmtree(self.folder / leftover)


def _acting(lineup: Lineup, name: str) -> Lineup:
    """The lineup with this version acting; what it was besides is over."""
    canary = None if lineup.canary == name else lineup.canary
    return replace(
        lineup,
        current=name,
        previous=lineup.current,
        shadow=None if lineup.shadow == name else lineup.shadow,
        canary=canary,
        share=lineup.share if canary else 0.0,
    )


def _portion(lineup: Lineup) -> str:
    return f"{lineup.canary} at {lineup.share:.2%}" if lineup.canary else "-"


def _is_version(path: Path) -> bool:
    try:
        return check_name(path.name) != ORIGIN and path.is_dir()
    except VersionError:
        return False
