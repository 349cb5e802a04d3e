"""What two requests must have in common for one answer to serve both."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import experts
from experts.wheel import sha256
from orchestrator import __version__
from orchestrator.combination import Team
from orchestrator.config import Config
from orchestrator.request import Role
from orchestrator.sameness import facts
from orchestrator.task import Task
from router.decision import Decision

_SECTIONS = {"models", "experts", "generalist", "encoder", "combination", "retrieval"}
_OPENING = (str(Role.SYSTEM), str(Role.USER))


@dataclass(frozen=True)
class CacheKey:
    """Digests of a request, in hexadecimal.

    `exact` is equal for requests that say the same; `kin` for those that may differ in the words of
    their one question, but not in its numbers or denials, and by a twentieth in the weights of
    their experts. It is None where an answer depends on more than one question.
    """

    exact: str
    kin: str | None

    @classmethod
    def of(
        cls, task: Task, decision: Decision, team: Team, versions: Mapping[str, str], service: str
    ) -> CacheKey:
        """The key of a task that these experts answer from collections of these versions.

        `versions` are by name, in the order of the search; `service` is its `service_print`.
        """
        said = [(role, _plain(text)) for role, text in task.messages]
        common = {
            "service": service,
            "router": decision.router_version,
            "tenant": task.principal.tenant,
            "mode": str(team.mode),
            "weighting": str(task.weighting),
            "standby": team.standby,
            "sampling": asdict(task.sampling),
            "grounding": str(task.grounding),
            "collections": list(versions.items()),
            "filter": [task.condition.sql, list(map(str, task.condition.values))],
            "attached": list(task.attached),
        }
        exact = {**common, "said": said, "experts": _weights(team, 3)}
        roles = [role for role, _ in said]
        kin = None
        if roles in ([_OPENING[1]], list(_OPENING)) and not task.attached:
            asked = {"said": said[:-1], "facts": facts(said[-1][1]), "experts": _weights(team, 1)}
            kin = _digest({**common, **asked})
        return cls(_digest(exact), kin)


def service_print(config: Config) -> str:
    """A digest of what answers depend on beside the request: models, adapters, settings, program.

    Adapters that lie on this machine count by their content, models of a folder by the sizes and
    times of its files.
    """
    body: dict[str, Any] = {
        "program": __version__,
        "config": config.model_dump(mode="json", include=_SECTIONS),
        "models": {name: _listing(Path(m.source)) for name, m in config.models.items()},
        "adapters": {
            name: _content(expert.adapter)
            for name, expert in config.experts.items()
            if expert.adapter
        },
    }
    return _digest(body)


def _weights(team: Team, digits: int) -> list[tuple[str, float]]:
    return [(name, round(weight, digits)) for name, weight in team.experts]


def _plain(text: str) -> str:
    """The text in one form of Unicode and of line ends, without white space around it."""
    return unicodedata.normalize("NFC", text.replace("\r\n", "\n")).strip()


def _digest(body: object) -> str:
    written = json.dumps(body, sort_keys=True, ensure_ascii=True)
    return hashlib.sha256(written.encode()).hexdigest()


def _content(adapter: str) -> list[tuple[str, str]]:
    folder = Path(adapter)
    if adapter.startswith("embedded:"):
        folder = Path(experts.__file__).parent / "adapters" / adapter.removeprefix("embedded:")
    return [(file.name, sha256(file)) for file in _files(folder)]


def _listing(folder: Path) -> list[tuple[str, int, int]]:
    found = [(file.name, file.stat()) for file in _files(folder.expanduser())]
    return [(name, status.st_size, status.st_mtime_ns) for name, status in found]


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(file for file in path.iterdir() if file.is_file()) if path.is_dir() else []
