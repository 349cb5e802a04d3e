"""What the SDK sends of a folder, and what it does about files that cannot be sent."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

from orchestrator import Client
from orchestrator.client_filling import NAMES, SUFFIXES
from retrieval.readers import registry


class Recording(httpx.BaseTransport):
    """A service that notes what arrives, refuses what is too large, and adds the rest."""

    def __init__(self) -> None:
        self.requests: list[list[str]] = []
        self.timeouts: list[dict[str, float | None]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        body = request.read()
        names = [name.decode() for name in re.findall(rb'filename="([^"]*)"', body)]
        self.requests.append(names)
        self.timeouts.append(request.extensions["timeout"])
        if len(body) > 400_000:
            error = {"message": "Too large.", "code": "payload_too_large", "type": "x"}
            return httpx.Response(413, json={"error": error})
        row = {"outcome": "added", "documents": 1, "passages": 1, "errors": []}
        files = [{"file": name, **row} for name in names]
        report = {"collection": "c", "counts": {}, "documents": 0, "passages": 0, "files": files}
        return httpx.Response(200, json=report)


@pytest.fixture
def service() -> Recording:
    return Recording()


@pytest.fixture
def client(service: Recording) -> Client:
    return Client("http://127.0.0.1:9", transport=service)


def test_the_sdk_sends_what_the_service_reads() -> None:
    assert set(registry._BY_SUFFIX) == SUFFIXES
    assert set(registry._BY_NAME) == NAMES


def test_files_of_other_kinds_stay_at_home(
    client: Client, service: Recording, tmp_path: Path
) -> None:
    for name in ("a.md", "photo.JPG", "README", "b.PDF", "model.safetensors"):
        (tmp_path / name).write_bytes(b"x")
    client.collections.add("c", tmp_path)
    assert service.requests == [["README", "a.md", "b.PDF"]]
    client.collections.add("c", tmp_path / "photo.JPG")
    assert service.requests[1:] == [["photo.JPG"]]


def test_requests_are_small_and_wait_for_their_answer(
    client: Client, service: Recording, tmp_path: Path
) -> None:
    for n in range(4):
        (tmp_path / f"{n}.txt").write_bytes(b"x" * 190_000)
    report = client.collections.add("c", tmp_path, documents=[{"id": "d", "text": "Words."}])
    assert service.requests == [[], ["0.txt", "1.txt"], ["2.txt", "3.txt"]]
    assert report.counts == {"added": 4}
    assert [timeout["read"] for timeout in service.timeouts] == [None] * 3
    assert all(timeout["connect"] == 5.0 for timeout in service.timeouts)


def test_a_file_that_is_too_large_or_unreadable_stops_no_other(
    client: Client, service: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, size in (("a.txt", 10), ("b.txt", 450_000), ("c.txt", 10), ("d.txt", 10)):
        (tmp_path / name).write_bytes(b"x" * size)
    read = Path.read_bytes

    def refusing(path: Path) -> bytes:
        if path.name == "c.txt":
            raise PermissionError(13, "Permission denied")
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refusing)
    report = client.collections.add("c", tmp_path)
    outcomes = {file.file: (file.outcome, file.errors) for file in report.files}
    assert outcomes["a.txt"] == outcomes["d.txt"] == ("added", [])
    assert outcomes["b.txt"] == ("failed", ["Too large."])
    assert outcomes["c.txt"][1] == ["'c.txt' cannot be read: Permission denied."]
    assert report.counts == {"added": 2, "failed": 2}
