"""The documents are true: examples run, commands parse, links lead somewhere."""

from __future__ import annotations

import ast
import asyncio
import importlib.util
import json
import os
import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import click
import httpx
import pytest
import yaml
from in_process import Service, configuration, serving

from orchestrator import __version__
from orchestrator.cli.root import cli
from orchestrator.collection_wire import SearchRequest
from orchestrator.config import DEFAULT_FILE, Config
from orchestrator.errors import SERVED
from orchestrator.request import ChatRequest, EmbeddingsRequest, FeedbackRequest
from retrieval.document import Document
from retrieval.index import Index

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
LICENCES = [
    Document(
        "apache",
        "Apache License 2.0",
        "The Apache License 2.0 grants patent rights to every user of the work.",
    ),
    Document(
        "bsd",
        "BSD 2-Clause License",
        "Who redistributes software under the BSD licence must keep the copyright notice.",
    ),
]
ADDRESS = "http://127.0.0.1:8000"
SCHEMAS = {
    "/v1/chat/completions": ChatRequest,
    "/v1/route": ChatRequest,
    "/v1/embeddings": EmbeddingsRequest,
    "/v1/feedback": FeedbackRequest,
    "/v1/collections/handbook/search": SearchRequest,
}


@dataclass(frozen=True)
class Block:
    """A fenced block and where it begins."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path.relative_to(ROOT)}:{self.line}"


def blocks(language: str, paths: list[Path]) -> list[Block]:
    found = []
    for path in paths:
        text = path.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            if match[1] == language:
                found.append(Block(path, text.count("\n", 0, match.start(2)) + 1, match[2]))
    return found


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_generate", ROOT / "docs" / "generate.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def command_lines(text: str) -> Iterator[list[str]]:
    """The words of each command of a shell block, without variables set before it."""
    # A quoted argument may hold line breaks, so the quotes decide where a command ends.
    command = ""
    for line in text.splitlines():
        command += line + "\n"
        try:
            words = shlex.split(command, comments=True)
        except ValueError:
            continue
        if line.endswith("\\"):
            command = command.removesuffix("\\\n") + " "
            continue
        command = ""
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        if words:
            yield words
    assert not command, f"the block ends inside a command: {command!r}"


def commands(program: str) -> list[tuple[str, list[str]]]:
    """Commands of this program in the documents, with the place of their block."""
    readmes = [*DOCUMENTS, ROOT / "helm" / "collegium" / "README.md"]
    shells = [*blocks("sh", readmes), *blocks("bash", readmes)]
    return [
        (str(block), words[1:])
        for block in shells
        for words in command_lines(block.text)
        if words[0] == program
    ]


@pytest.fixture(scope="module")
def documented(encoder_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The embedded default's experts, weightless, over two small collections; gives the address."""
    folder = tmp_path_factory.mktemp("documented")
    default = yaml.safe_load(DEFAULT_FILE.read_text(encoding="utf-8"))
    opened = Service.open(configuration(encoder_dir, folder, experts=default["experts"]))
    index = Index(folder, lambda texts: asyncio.run(opened.retriever.embed(texts)))
    index.add("licences", LICENCES)
    index.add("python-docs", [Document("json.loads", "json.loads", "Parses JSON in Python.")])
    index.close()
    with serving(opened.app()) as url:
        yield url


def test_the_documents_hold_what_is_tested_here() -> None:
    assert len(blocks("python", DOCUMENTS)) >= 5
    assert len(blocks("yaml", DOCUMENTS)) >= 5
    assert len(commands("collegium")) >= 15
    assert {"make", "curl"} == {p for p in ("make", "curl") if commands(p)}


@pytest.mark.models
@pytest.mark.parametrize("block", blocks("python", DOCUMENTS), ids=str)
def test_a_python_example_runs(
    block: Block, documented: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in [n for n in os.environ if n.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    # Empty lines before it, so that a traceback names the line of the document.
    source = "\n" * (block.line - 1) + block.text.replace(ADDRESS, documented)
    exec(compile(source, str(block.path), "exec"), {"__name__": "__main__"})


def merged(base: Any, change: Any) -> Any:  # noqa: ANN401
    if isinstance(base, Mapping) and isinstance(change, Mapping):
        joined = {key: merged(base.get(key), value) for key, value in change.items()}
        return {**base, **joined}
    return change


@pytest.mark.parametrize("block", blocks("yaml", DOCUMENTS), ids=str)
def test_a_configuration_example_is_valid(block: Block) -> None:
    body = yaml.safe_load(block.text)
    assert set(body) <= set(Config.model_fields)
    whole = "models" in body
    default = yaml.safe_load(DEFAULT_FILE.read_text(encoding="utf-8"))
    Config.check(body if whole else merged(default, body), origin=str(block))


@pytest.mark.parametrize(("place", "words"), commands("collegium"))
def test_a_command_line_parses(place: str, words: list[str]) -> None:
    context, command, rest = click.Context(cli, info_name="collegium"), cli, list(words)
    while isinstance(command, click.Group) and rest:
        name, found, rest = command.resolve_command(context, rest)
        assert found is not None and name is not None
        context, command = click.Context(found, parent=context, info_name=name), found  # type: ignore[assignment]
    given, extra, _ = command.make_parser(context).parse_args(list(rest))
    assert not extra, f"{place}: {extra}"
    for parameter in command.params:
        value = given.get(parameter.name or "")
        absent = value is None or value == [] or type(value).__name__ == "Sentinel"
        assert not (parameter.required and absent), f"{place}: {parameter.name} is missing"
        # Files of an example need not exist; everything else must be of its type.
        if not absent and not isinstance(parameter.type, click.Path):
            parameter.type_cast_value(context, value)


def test_a_wrong_command_line_does_not_pass() -> None:
    for words in (["serve", "--prot", "1"], ["serve", "--port", "x"], ["index", "add", "a"]):
        with pytest.raises((click.UsageError, AssertionError)):
            test_a_command_line_parses("here", words)


@pytest.mark.parametrize(("place", "words"), commands("curl"))
def test_a_curl_asks_for_what_is_served(place: str, words: list[str]) -> None:
    path = next(word for word in words if word.startswith("http")).removeprefix(ADDRESS)
    if "-d" in words:
        SCHEMAS[path].model_validate_json(words[words.index("-d") + 1])
    elif "-F" in words:
        assert path == "/v1/collections/handbook/documents"
    elif "DELETE" in words:
        assert path == "/v1/cache"
    else:
        assert path in ("/v1/models", "/healthz", "/readyz", "/metrics"), place


@pytest.mark.models
def test_the_first_curl_is_answered_with_its_decision(documented: str) -> None:
    words = commands("curl")[0][1]
    body = json.loads(words[words.index("-d") + 1])
    answer = httpx.post(f"{documented}/v1/chat/completions", json=body, trust_env=False).json()
    told = json.loads(blocks("json", [ROOT / "README.md"])[0].text)["x_routing"]
    shown = [
        {"name": expert["name"], "weight": round(expert["weight"], 2)}
        for expert in answer["x_routing"]["experts"]
    ]
    assert shown == [{key: one[key] for key in ("name", "weight")} for one in told["experts"]]
    assert answer["x_routing"]["reason"] == told["reason"]
    assert answer["x_routing"]["grounding"] in ("grounded", "partly")


@pytest.mark.parametrize(("place", "words"), commands("make"))
def test_a_make_target_exists(place: str, words: list[str]) -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, re.MULTILINE))
    variables = set(re.findall(r"^([A-Z_]+) \?=", makefile, re.MULTILINE)) | {"ARGS"}
    settings = {word.partition("=")[0] for word in words if "=" in word}
    assert {word for word in words if "=" not in word} <= targets, place
    assert settings <= variables, place


def test_make_help_lists_every_target() -> None:
    shown = subprocess.run(
        ["make", "--no-print-directory", "help"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^([a-z]+):", makefile, re.MULTILINE):
        assert f"make {target} " in shown


def markdown_files() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    return [ROOT / name for name in listed.stdout.split() if (ROOT / name).is_file()]


@pytest.mark.parametrize("path", markdown_files(), ids=lambda p: str(p.relative_to(ROOT)))
def test_a_relative_link_leads_somewhere(path: Path) -> None:
    slug = generator().slug
    prose = FENCE.sub("", path.read_text(encoding="utf-8"))
    for link in LINK.findall(prose):
        if re.match(r"[a-z]+:", link):
            continue
        target, _, anchor = link.partition("#")
        file = path.parent / target if target else path
        assert file.exists(), link
        if anchor:
            headings = HEADING.findall(file.read_text(encoding="utf-8"))
            assert anchor in {slug(heading) for heading in headings}, link


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda p: p.name)
def test_the_generated_parts_are_up_to_date(path: Path) -> None:
    text = path.read_text(encoding="utf-8")
    assert generator().render(text) == text, "run: python docs/generate.py"


REFERENCE = re.compile(r"`([a-z_/]+\.py)(?::(\w+)(?:\.(\w+))?)?`")


def test_what_the_architecture_refers_to_is_there() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    references = REFERENCE.findall(text)
    assert len(references) > 30
    for file, outer, inner in references:
        tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
        names = _defined(tree)
        assert not outer or outer in names, f"{file}:{outer}"
        assert not inner or inner in _defined(names[outer]), f"{file}:{outer}.{inner}"


def _defined(node: ast.AST) -> dict[str, ast.AST]:
    kinds = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    return {child.name: child for child in ast.iter_child_nodes(node) if isinstance(child, kinds)}


def test_every_span_is_in_the_architecture() -> None:
    sources = "\n".join(p.read_text("utf-8") for p in (ROOT / "orchestrator").glob("*.py"))
    spans = set(re.findall(r"(?:\.span|\.start)\(\s*\"(collegium\.[\w.]+)\"", sources))
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert len(spans) >= 6
    assert set(re.findall(r"^\| `(collegium\.[\w.]+)` \|", text, re.MULTILINE)) == spans


def test_every_key_has_a_row() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    schema = Config.model_json_schema()
    keys = {k for part in (schema, *schema["$defs"].values()) for k in part.get("properties", {})}
    assert len(keys) > 60
    assert {key for key in keys if f"| `{key}` |" not in text} == set()


def test_a_key_without_meaning_is_noticed(tmp_path: Path) -> None:
    module = generator()
    written = yaml.safe_load((ROOT / "docs" / "meanings.yaml").read_text(encoding="utf-8"))
    del written["ServerConfig"]["haproxy"]
    (tmp_path / "meanings.yaml").write_text(yaml.safe_dump(written), encoding="utf-8")
    module.__dict__["DOCS"] = tmp_path
    with pytest.raises(module.MeaningError, match="ServerConfig: haproxy"):
        module.render("<!-- generated: config -->\n<!-- end generated -->")


def test_the_changelog_begins_with_this_version() -> None:
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    head = re.search(r"^## \[([^\]]+)\] - \d{4}-\d{2}-\d{2}$", changes, re.MULTILINE)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert head is not None
    assert head[1] == __version__ == project["version"]


def test_the_error_table_names_every_served_error() -> None:
    text = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
    for kind in SERVED:
        assert f"| `{kind.__name__}` | {kind.status} | `{kind.type}` | `{kind.code}` |" in text


@pytest.mark.models
def test_the_endpoints_are_those_that_are_served(documented: str) -> None:
    served = set(httpx.get(f"{documented}/openapi.json", trust_env=False).json()["paths"])
    text = (ROOT / "docs" / "http-api.md").read_text(encoding="utf-8")
    table = text[: text.index("\n## ")]
    assert set(re.findall(r"`(?:GET|POST|DELETE) (/[^`]+)`", table)) == served
