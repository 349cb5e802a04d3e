"""Collections over HTTP and in the SDK: upload, search, list, delete, and who may."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request
from in_process import Service, configuration, fill, serving
from misbehaving import Connect
from test_retrieval_readers import pdf, word

from orchestrator import InvalidRequest, NotFound
from orchestrator.gateway import Gateway
from orchestrator.identity import EVERYONE, Principal
from orchestrator.telemetry import Telemetry

pytest_plugins = ["sdk_fixtures"]
pytestmark = pytest.mark.models

CALLERS = {
    "reader": Principal("t", collections=frozenset({"statutes", "made"}), writable=frozenset()),
    "writer": Principal("t", collections=frozenset({"made"})),
}


class Keyed(Gateway):
    """A gateway whose callers say who they are."""

    def _principal(self, http: Request) -> Principal:
        return CALLERS.get(http.headers.get("x-caller", ""), EVERYONE)


@pytest.fixture(scope="module")
def service(encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    limits = {"max_upload_bytes": 200_000, "max_upload_files": 6, "upload_seconds": 1}
    folder = tmp_path_factory.mktemp("collections")
    opened = Service.open(configuration(encoder_dir, folder, limits=limits))
    fill(opened)
    app = Keyed(opened.config, opened.pipeline(), Telemetry("test", "gateway")).app()
    with serving(app) as url:
        yield opened.served_at(url)


@pytest.fixture
def http(service: Service) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=service.url, trust_env=False, timeout=60) as client:
        yield client
        client.delete("/v1/collections/made")


def upload(
    http: httpx.Client, *files: tuple[str, bytes], collection: str = "made", **data: str
) -> httpx.Response:
    parts = [("files", (name, content)) for name, content in files]
    return http.post(f"/v1/collections/{collection}/documents", files=parts, data=data)


def error(response: httpx.Response) -> dict[str, Any]:
    found: dict[str, Any] = response.json()["error"]
    return found


def test_files_are_uploaded_searched_listed_and_removed(http: httpx.Client) -> None:
    data = pdf("Summary.", "The harvest was plentiful.")
    sent = upload(
        http, ("sub/report.pdf", data), ("h.docx", word()), license="CC0-1.0", metadata='{"n": 1}'
    )
    assert sent.status_code == 200
    body = sent.json()
    assert body["counts"] == {"added": 2}
    hit = http.post("/v1/collections/made/search", json={"query": "plentiful harvest", "top_k": 1})
    (found,) = hit.json()["data"]
    assert (found["file"], found["page"], found["license"]) == ("sub/report.pdf", 2, "CC0-1.0")
    assert found["sha256"] == hashlib.sha256(data).hexdigest()
    document = http.get("/v1/collections/made/documents/sub/report.pdf").json()
    assert document["text"][found["start"] : found["end"]] == found["text"]
    assert (document["metadata"], document["pages"]) == ({"n": 1}, 2)
    listed = http.get("/v1/collections/made/documents").json()
    assert [row["id"] for row in listed["data"]] == ["h.docx", "sub/report.pdf"]
    assert all(row["text"] is None and row["passages"] >= 1 for row in listed["data"])
    card = http.get("/v1/collections/made").json()
    assert (card["id"], card["documents"], card["writable"]) == ("made", 2, True)
    gone = http.delete("/v1/collections/made/documents/sub%2Freport.pdf")
    assert gone.json() == {
        "object": "collection.document.deleted",
        "id": "sub/report.pdf",
        "deleted": True,
    }
    assert http.delete("/v1/collections/made").json()["object"] == "collection.deleted"
    assert error(http.get("/v1/collections/made"))["code"] == "collection_not_found"


def test_documents_come_as_json_as_well(http: httpx.Client) -> None:
    document = {"id": "a", "text": "# Title\n\nWords.", "format": "markdown", "lang": "en"}
    for outcome in ("added", "unchanged"):
        sent = http.post("/v1/collections/made/documents", json={"documents": [document] * 2})
        files = sent.json()["files"]
        assert [row["outcome"] for row in files] == [outcome, "failed"]
        assert files[1]["errors"] == ["The id 'a' was given twice."]


def test_every_bad_file_is_told_and_the_rest_is_in(http: httpx.Client) -> None:
    sent = upload(
        http,
        ("good.txt", b"Good words."),
        ("../../etc/passwd", b"x"),
        ("/abs.txt", b"x"),
        ("broken.pdf", b"%PDF-1.4"),
        ("empty.txt", b""),
    )
    assert sent.status_code == 200
    body = sent.json()
    assert body["counts"] == {"added": 1, "failed": 4}
    reasons = ["cannot name a file", "cannot name a file", "broken PDF", "is empty"]
    failed = [row["errors"][0] for row in body["files"] if row["outcome"] == "failed"]
    assert [reason in said for reason, said in zip(reasons, failed, strict=True)] == [True] * 4


def test_a_page_of_documents_goes_on_behind_the_last(http: httpx.Client) -> None:
    documents = [{"id": f"d{n}", "text": f"Text {n}."} for n in range(5)]
    http.post("/v1/collections/made/documents", json={"documents": documents})
    seen: list[str] = []
    more = True
    while more:
        after = {"after": seen[-1]} if seen else {}
        page = http.get("/v1/collections/made/documents", params={"limit": 2, **after}).json()
        seen += [row["id"] for row in page["data"]]
        more = page["has_more"]
    assert seen == [f"d{n}" for n in range(5)]


@pytest.mark.parametrize(
    ("files", "data", "param"),
    [
        ([], {"license": "x"}, "files"),
        ([("a.txt", b"x")], {"licence": "x"}, "licence"),
        ([("a.txt", b"x")], {"metadata": "{"}, "metadata"),
        ([("a.txt", b"x")], {"metadata": '{"a": [1]}'}, "metadata.a"),
        ([("a.txt", b"x")], {"lang": "??"}, "lang"),
        ([("a.txt", b"x")] * 7, {}, None),
    ],
)
def test_a_wrong_form_is_refused(
    http: httpx.Client, files: list[tuple[str, bytes]], data: dict[str, str], param: str | None
) -> None:
    parts = [("files", file) for file in files] or [("files", ("", b""))]
    response = http.post("/v1/collections/made/documents", files=parts, data=data)
    assert response.status_code == 400
    assert (error(response)["param"] or "").startswith(param or "")
    assert http.get("/v1/collections/made").status_code == 404


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "documents"),
        ({"documents": []}, "documents"),
        ({"documents": [{"id": "a"}]}, "documents[0].text"),
        ({"documents": [{"id": "a", "text": " "}]}, "documents[0]"),
        ({"documents": [{"id": "a", "text": "x", "lnag": "en"}]}, "documents[0].lnag"),
        ({"documents": [{"id": "a", "text": "x", "metadata": {"k": {}}}]}, "documents[0].metadata"),
    ],
)
def test_a_wrong_body_is_refused(http: httpx.Client, body: dict[str, Any], param: str) -> None:
    response = http.post("/v1/collections/made/documents", json=body)
    assert response.status_code == 400
    assert error(response)["param"].startswith(param)


def test_what_is_too_large_is_refused_declared_or_not(http: httpx.Client) -> None:
    large = b"word " * 50_000
    head = b'--x\r\ncontent-disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'
    for response in (
        upload(http, ("a.txt", large)),
        http.post(
            "/v1/collections/made/documents",
            content=iter([head, *[large[:50_000]] * 5]),
            headers={"content-type": "multipart/form-data; boundary=x"},
        ),
        http.post("/v1/collections/made/documents", json={"documents": [large.decode()]}),
    ):
        assert response.status_code == 413
        assert error(response)["param"] == "files"
    response = http.post("/v1/collections/made/documents", content=b"x")
    assert (response.status_code, error(response)["code"]) == (415, "unsupported_media_type")
    form = http.post("/v1/chat/completions", files={"files": b"x"})
    assert form.status_code == 415


def test_a_body_that_does_not_come_gives_its_place_back(service: Service) -> None:
    host, _, port = service.url.removeprefix("http://").partition(":")
    head = (
        f"POST /v1/collections/made/documents HTTP/1.1\r\nhost: {host}\r\n"
        "content-type: application/json\r\ncontent-length: 1000\r\n\r\n"
    )
    started = time.monotonic()
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        raw.sendall(head.encode() + b'{"documents": [')
        answer = raw.recv(65_536)
    assert time.monotonic() - started >= 1.0
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"The body did not arrive within 1 s: send fewer files at once." in answer


def test_who_goes_away_while_uploading_is_no_fault(
    service: Service, http: httpx.Client, caplog: pytest.LogCaptureFixture
) -> None:
    host, _, port = service.url.removeprefix("http://").partition(":")
    path = "/v1/collections/made/documents"
    with socket.create_connection((host, int(port)), timeout=30) as raw:
        head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        raw.sendall(f"{head}content-length: 1000\r\n\r\n{{".encode())
        time.sleep(0.2)
    until = time.monotonic() + 10.0
    while 'status="499"' not in http.get("/metrics").text and time.monotonic() < until:
        time.sleep(0.05)
    assert 'status="499"' in http.get("/metrics").text
    assert not [row for row in caplog.records if row.levelname == "ERROR"]


def test_a_chat_is_told_what_is_wrong_with_its_collection(
    http: httpx.Client, service: Service
) -> None:
    broken = Path(str(service.config.retrieval.directory)) / "broken"
    broken.mkdir()
    (broken / "collection.sqlite").write_bytes(b"not a database, but long enough" * 40)
    asked = {
        "model": "general",
        "messages": [{"role": "user", "content": "What is it?"}],
        "routing": {"collections": ["broken"]},
    }
    answer = http.post("/v1/chat/completions", json=asked)
    shutil.rmtree(broken)
    assert answer.status_code == 500
    assert "'broken'" in error(answer)["message"]


def test_names_and_queries_are_checked(http: httpx.Client) -> None:
    assert upload(http, ("a.txt", b"x"), collection="No.Name").status_code == 400
    for body, param in (
        ({"query": ""}, "query"),
        ({"query": "x", "top_k": 0}, "top_k"),
        ({"query": "x", "topk": 1}, "topk"),
        ({"query": "x", "filter": {"language": "de"}}, "filter"),
        ({"query": "x", "filter": {"added": "today"}}, "filter"),
    ):
        response = http.post("/v1/collections/statutes/search", json=body)
        assert (response.status_code, error(response)["param"]) == (400, param)
    response = http.get("/v1/collections/statutes/documents/absent")
    assert (response.status_code, error(response)["code"]) == (404, "document_not_found")
    assert http.get("/v1/collections/statutes/documents?limit=0").status_code == 400


def test_a_filter_limits_a_search(http: httpx.Client) -> None:
    for name, year in (("old.txt", 2019), ("new.txt", 2024)):
        upload(http, (name, b"Sick leave is paid."), metadata=json.dumps({"year": year}))

    def found(filter: dict[str, Any] | None) -> set[str]:
        body = {"query": "sick leave", "filter": filter}
        response = http.post("/v1/collections/made/search", json=body)
        assert response.status_code == 200
        return {hit["document_id"] for hit in response.json()["data"]}

    assert found({"metadata.year": {">=": 2020}}) == {"new.txt"}
    assert found({"metadata.year": {"<": 2020}}) == {"old.txt"}
    assert found({"document": "absent"}) == set()
    # The same text is found once, whichever document it comes from.
    assert len(found(None)) == len(found({})) == 1


def test_a_filter_tells_nothing_of_what_may_not_be_read(http: httpx.Client) -> None:
    body = {"query": "x", "filter": {"language": "de"}}
    path = "/v1/collections/secrets/search"
    response = http.post(path, json=body, headers={"x-caller": "reader"})
    assert (response.status_code, error(response)["code"]) == (404, "collection_not_found")


def test_what_may_not_be_read_does_not_exist(http: httpx.Client) -> None:
    who = {"x-caller": "reader"}
    listed = http.get("/v1/collections", headers=who).json()["data"]
    assert [(card["id"], card["writable"]) for card in listed] == [("statutes", False)]
    everything = http.get("/v1/collections").json()["data"]
    assert {card["id"] for card in everything} >= {"secrets", "snippets", "statutes"}
    for name in ("secrets", "nowhere"):
        for response in (
            http.get(f"/v1/collections/{name}", headers=who),
            http.get(f"/v1/collections/{name}/documents", headers=who),
            http.get(f"/v1/collections/{name}/documents/merger", headers=who),
            http.post(f"/v1/collections/{name}/search", json={"query": "x"}, headers=who),
            http.post(f"/v1/collections/{name}/documents", json={"documents": []}, headers=who),
            http.delete(f"/v1/collections/{name}", headers=who),
            http.delete(f"/v1/collections/{name}/documents/merger", headers=who),
        ):
            assert response.status_code == 404
            assert error(response)["message"] == f"There is no collection {name!r}."
    assert http.get("/v1/collections/secrets").json()["documents"] == 1


def test_a_broken_collection_hides_no_other(http: httpx.Client, service: Service) -> None:
    broken = Path(str(service.config.retrieval.directory)) / "broken"
    broken.mkdir()
    (broken / "collection.sqlite").write_bytes(b"not a database, but long enough" * 40)
    listed = http.get("/v1/collections")
    shutil.rmtree(broken)
    assert {card["id"] for card in listed.json()["data"]} >= {"secrets", "snippets", "statutes"}


def test_who_may_only_read_changes_nothing(http: httpx.Client) -> None:
    who = {"x-caller": "reader"}
    for response in (
        http.post("/v1/collections/made/documents", json={"documents": []}, headers=who),
        http.delete("/v1/collections/statutes", headers=who),
        http.delete("/v1/collections/statutes/documents/patents", headers=who),
    ):
        assert (response.status_code, error(response)["code"]) == (403, "permission_denied")
    body = {"documents": [{"id": "a", "text": "Words."}]}
    who = {"x-caller": "writer"}
    sent = http.post("/v1/collections/made/documents", json=body, headers=who)
    assert sent.json()["counts"] == {"added": 1}
    assert http.delete("/v1/collections/made", headers=who).status_code == 200


def test_without_a_key_nothing_is_written_where_others_may_listen(service: Service) -> None:
    server = service.config.server.model_copy(update={"host": "0.0.0.0"})
    config = service.config.model_copy(update={"server": server})
    app = Gateway(config, service.pipeline(), Telemetry("test", "gateway")).app()
    with serving(app) as url, httpx.Client(base_url=url, trust_env=False, timeout=60) as opened:
        for response in (
            upload(opened, ("a.txt", b"Words.")),
            opened.delete("/v1/collections/statutes"),
        ):
            assert (response.status_code, error(response)["code"]) == (403, "permission_denied")
            assert "server.keyless_writes" in error(response)["message"]
        card = opened.get("/v1/collections/statutes").json()
        assert (card["documents"], card["writable"]) == (1, False)


def test_answers_cite_what_was_uploaded(http: httpx.Client) -> None:
    text = "The licence of the orchard ends when the last apple tree has fallen in a storm."
    data = pdf("Cover.", text)
    upload(http, ("orchard.pdf", data))
    body = {
        "model": "general",
        "messages": [{"role": "user", "content": f"{text} Is it so?"}],
        "routing": {"collections": ["made"]},
    }
    message = http.post("/v1/chat/completions", json=body).json()["choices"][0]["message"]
    citation = message["annotations"][0]["url_citation"]
    assert (citation["page"], citation["collection"]) == (2, "made")
    assert citation["sha256"] == hashlib.sha256(data).hexdigest()


def test_openapi_describes_both_bodies(http: httpx.Client) -> None:
    paths = http.get("/openapi.json").json()["paths"]
    content = paths["/v1/collections/{name}/documents"]["post"]["requestBody"]["content"]
    assert set(content) == {"application/json", "multipart/form-data"}
    assert set(paths["/v1/collections/{name}/documents/{document_id}"]) == {"get", "delete"}


def test_the_sdk_adds_lists_searches_and_deletes(
    service: Service, connect_sdk: Connect, tmp_path: Path
) -> None:
    client = connect_sdk(service.url)
    folder = tmp_path / "docs"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "a.md").write_text("# Apples\n\nApples grow on trees.\n")
    (folder / ".hidden.md").write_text("x")
    (folder / "empty.txt").write_text("")
    report = client.collections.add("made", folder, lang="en", metadata={"year": 2024})
    assert report.counts == {"added": 1, "failed": 1}
    (tmp_path / "b.txt").write_text("Bananas grow in bunches.")
    documents = [{"id": "c", "title": "Cherries", "text": "Cherries have stones."}]
    report = client.collections.add("made", [tmp_path / "b.txt"], documents=documents)
    assert report.counts == {"added": 2}
    (hit,) = client.collections.search("made", "cherries with stones", top_k=1)
    assert (hit.document_id, hit.title) == ("c", "Cherries")
    hits = client.collections.search("made", "cherries", filter={"metadata.year": {">": 2020}})
    assert [hit.document_id for hit in hits] == ["sub/a.md"]
    cards = client.collections.documents("made")
    assert [card.id for card in cards] == ["b.txt", "c", "sub/a.md"]
    held = client.collections.document("made", "sub/a.md")
    assert (held.text, held.lang) == ("# Apples\n\nApples grow on trees.\n", "en")
    assert held.metadata == {"year": 2024}
    client.collections.delete("made", "sub/a.md")
    assert client.collections.get("made").documents == 2
    assert "made" in {card.id for card in client.collections.list()}
    client.collections.delete("made")
    with pytest.raises(NotFound) as caught:
        client.collections.get("made")
    assert caught.value.code == "collection_not_found"


def test_mistakes_in_the_sdk_are_told_before_anything_is_sent(
    service: Service, connect_sdk: Connect
) -> None:
    client = connect_sdk(service.url)
    with pytest.raises(InvalidRequest, match="no file or folder"):
        client.collections.add("made", "/nowhere/at/all")
    with pytest.raises(InvalidRequest, match="top_k"):
        client.collections.search("made", "x", top_k=0)
    with pytest.raises(InvalidRequest, match="filter"):
        client.collections.search("made", "x", filter={"added": {">": object()}})
    with pytest.raises(InvalidRequest, match="documents"):
        client.collections.add("made", documents=[{"id": "x"}])


def test_folders_go_out_in_several_requests(
    service: Service, connect_sdk: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestrator.client_filling.BATCH_FILES", 2)
    for n in range(5):
        (tmp_path / f"f{n}.txt").write_text(json.dumps({"words": f"number {n}"}))
    client = connect_sdk(service.url)
    report = client.collections.add("made", tmp_path)
    assert (report.counts, len(report.files)) == ({"added": 5}, 5)
    client.collections.delete("made")
