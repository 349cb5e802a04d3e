"""The command line: what it shows, and how it ends."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from in_process import Service

from orchestrator.cli.root import COMMANDS, cli
from retrieval.document import Document
from retrieval.encoder import Encoder
from retrieval.index import Index

pytest_plugins = ["service_fixtures"]


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments)


def without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command where a package is not installed."""
    code = f"import sys; sys.modules[{module!r}] = None; sys.argv[1:] = {list(arguments)!r}\n"
    code += "from orchestrator.cli import main; main()"
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_help_needs_no_package_of_the_service() -> None:
    for module in ("yaml", "numpy"):
        done = without(module, "--help")
        assert (done.returncode, done.stderr) == (0, "")
        assert all(f"  {name} " in done.stdout for name in COMMANDS)


def test_a_command_whose_package_is_missing_says_what_to_install() -> None:
    done = without("yaml", "serve", "--check")
    assert done.returncode == 1
    assert done.stderr.startswith("collegium: the package 'yaml' is missing.")
    assert "collegium[serve]" in done.stderr


def test_every_fault_of_a_configuration_is_shown_before_anything_starts(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text("models: {base: {source: x, contxt: 1}}\nexperts: {general: {model: bass}}\n")
    done = run("serve", "--config", str(path))
    assert done.exit_code == 1
    assert "my.yaml has 2 fault(s):" in done.output
    assert "`models.base.contxt`" in done.output
    assert "`experts.general.model`" in done.output


def test_a_service_and_a_configuration_cannot_both_decide() -> None:
    done = run("route", "x", "--url", "http://127.0.0.1:9", "--config", __file__)
    assert done.exit_code == 2
    assert "drop one" in done.output


def test_a_wrong_routing_option_is_named_before_anything_is_loaded() -> None:
    done = run("route", "x", "--locale", "pt_BR")
    assert done.exit_code == 1
    assert "routing.locale" in done.output
    for wish in ("code", "code=much", "=1"):
        done = run("route", "x", "--prefer", wish)
        assert done.exit_code == 2
        assert "NAME=NUMBER" in done.output


@pytest.mark.models
def test_one_question_is_answered_with_its_experts_and_sources(service: Service) -> None:
    done = run("chat", "--url", service.url, "--model", "code", "[/b] Is it [red] or not?")
    assert done.exit_code == 0
    answer, spoke, *_ = done.stdout.splitlines()
    assert answer == "[/b] Is it [red] or not?"
    assert spoke.startswith("code 1.00 · single · ")


@pytest.mark.models
def test_a_question_that_fails_ends_with_an_error(service: Service) -> None:
    done = run("chat", "--url", service.url, "--model", "[/nobody]", "x")
    assert done.exit_code == 1
    assert done.stdout == ""
    assert "[/nobody]" in done.stderr


@pytest.mark.models
def test_a_conversation_goes_on_after_an_error(service: Service) -> None:
    said = "/model [/b]\nfirst\n/model code\nsecond\n/nonsense\n/new\n/quit\n"
    done = CliRunner().invoke(cli, ["chat", "--url", service.url], input=said)
    assert done.exit_code == 0
    assert "model [/b]" in done.stdout
    assert "second" in done.stdout
    assert "a new conversation" in done.stdout
    asked = service.echo("code").requests[-1]
    assert [text for _role, text in asked.messages] == ["second"]


@pytest.fixture
def filled(tmp_path: Path, encoder_dir: Path) -> Iterator[Path]:
    """A configuration file with one collection that holds brackets."""
    index = Index(tmp_path / "collections", Encoder(encoder_dir).encode)
    index.add("notes", [Document("a", "[/title]", "The [bold] word and [/x] stay as they are.")])
    index.close()
    path = tmp_path / "my.yaml"
    path.write_text(
        f"models: {{base: {{source: x}}}}\nexperts: {{general: {{model: base}}}}\n"
        f"encoder: {{source: {encoder_dir}}}\nretrieval: {{directory: collections}}\n"
    )
    yield path


@pytest.mark.models
def test_brackets_of_a_document_are_shown(filled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestrator.cli.console.out.width", 200)
    done = run("index", "search", "brackets", "--config", str(filled))
    assert done.exit_code == 0
    assert "[/title]" in done.stdout
    assert "The [bold] word and [/x] stay as they are." in done.stdout


@pytest.mark.models
def test_a_risk_that_the_gate_does_not_promise_stops_the_start(filled: Path) -> None:
    filled.write_text(
        filled.read_text().replace("{source: x}", "{source: smollm2-135m-instruct}")
        + "router: {max_risk: 0.15}\n"
    )
    for command in (("serve", "--no-index", "--port", "18999"), ("route", "x")):
        done = run(*command, "--config", str(filled))
        assert done.exit_code == 1
        assert "max_risk 0.15: this gate" in done.output
        assert isinstance(done.exception, SystemExit)


def test_a_missing_encoder_is_named_without_a_traceback(tmp_path: Path) -> None:
    path = tmp_path / "my.yaml"
    path.write_text(
        "models: {base: {source: x}}\nexperts: {general: {model: base}}\n"
        "encoder: {source: ./nowhere}\n"
    )
    for command in (("index", "list"), ("route", "x")):
        done = run(*command, "--config", str(path))
        assert done.exit_code == 1
        assert "nowhere" in done.output
        assert isinstance(done.exception, SystemExit)


@pytest.mark.models
def test_a_search_takes_a_filter(filled: Path) -> None:
    arguments = ("index", "search", "brackets", "--config", str(filled), "--filter")
    assert "bold" in run(*arguments, '{"document": "a"}').stdout
    assert "bold" not in run(*arguments, '{"document": "b"}').stdout
    for wrong, said in (("{", "not JSON"), ("[1]", "a JSON object"), ('{"x": 1}', "no field 'x'")):
        done = run(*arguments, wrong)
        assert done.exit_code != 0
        assert said in done.output


@pytest.mark.models
def test_a_collection_is_tuned_and_untuned(filled: Path, tmp_path: Path) -> None:
    queries = tmp_path / "queries.jsonl"
    row = '{"query": "which word is bold?", "relevant_ids": ["a"], "lang": "en"}\n'
    queries.write_text(row * 9)
    arguments = ("index", "tune", "notes", "--config", str(filled))
    few = run(*arguments, "--queries", str(queries))
    assert few.exit_code == 1
    assert "at least 10 labelled questions, not 9" in few.output
    queries.write_text(row * 10)
    assert "(not written)" in run(*arguments, "--queries", str(queries), "--dry-run").stdout
    assert "meaning now weighs" in run(*arguments, "--queries", str(queries)).stdout
    assert "weighed as usual" in run(*arguments, "--reset").stdout
    assert run(*arguments).exit_code == 2
    queries.write_text(row + '{"query": "x"}\n')
    assert "line 2: expected" in run(*arguments, "--queries", str(queries)).output


@pytest.mark.models
def test_a_vector_file_is_made_by_hand(filled: Path) -> None:
    done = run("index", "refresh", "notes", "--config", str(filled))
    assert "flat, 1 passages" in done.stdout
    assert "bold" in run("index", "search", "brackets", "--config", str(filled)).stdout
