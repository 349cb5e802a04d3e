"""`collegium train expert` on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from safetensors.torch import load_file

from orchestrator.cli.root import cli
from orchestrator.cli.train import _command

LONG = "It lies on the shelf beside the window, under {} books."


def write_rows(path: Path, licenses: tuple[str, ...] = ("MIT",), labels: int = 0) -> Path:
    rows = [
        {
            "prompt": f"Where is item {n}?",
            "response": "Yes" if n < labels else LONG.format(n),
            "license": licenses[n % len(licenses)],
            "source": "shelf",
        }
        for n in range(120)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


def train(base: Path, data: Path, out: Path, *more: str) -> None:
    arguments = ["train", "expert", "--name", "shelf", "--data", str(data), "--out", str(out)]
    options = ["--base", str(base), "--tokens", "300", "--held-out", "0.2", "--rank", "2"]
    cli.main([*arguments, *options, "--threads", "1", *more], standalone_mode=False)


def table(card: Path) -> dict[str, int]:
    lines = card.read_text().partition("| source | licence | rows |")[2].split("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in lines.splitlines() if "shelf" in line]
    return {row[1]: int(row[2]) for row in rows}


def test_an_expert_is_trained_and_described(
    tiny_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(tiny_dir, write_rows(tmp_path / "rows.jsonl"), tmp_path / "shelf")
    assert sorted(path.name for path in (tmp_path / "shelf").iterdir()) == [
        "LICENSE",
        "README.md",
        "adapter_config.json",
        "adapter_model.safetensors",
    ]
    assert len(load_file(tmp_path / "shelf" / "adapter_model.safetensors")) == 28
    assert "\nlicense: apache-2.0\n" in (tmp_path / "shelf" / "README.md").read_text()
    assert "Warning" not in capsys.readouterr().err


def test_restricted_licences_are_warned_of_with_the_way_out(
    tiny_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_rows(tmp_path / "rows.jsonl", ("MIT", "CC BY-NC 4.0", "GPL-3.0", ""))
    train(tiny_dir, data, tmp_path / "shelf")
    said = capsys.readouterr()
    counts = table(tmp_path / "shelf" / "README.md")
    assert counts.keys() == {"MIT", "CC BY-NC 4.0", "GPL-3.0", "unnamed"}
    for name in ("CC BY-NC 4.0", "GPL-3.0", "unnamed"):
        assert f"{name} ({counts[name]} rows)" in said.err
    way_out = ["--exclude-license", "CC BY-NC 4.0"]
    way_out += ["--exclude-license", "GPL-3.0", "--exclude-license", "unnamed"]
    told = "--exclude-license 'CC BY-NC 4.0' --exclude-license GPL-3.0 --exclude-license unnamed"
    assert said.err.count(f"Leave those rows out with {told}\n") == 1
    assert "Warning" not in said.out
    assert "\nlicense: other\n" in (tmp_path / "shelf" / "README.md").read_text()
    train(tiny_dir, data, tmp_path / "clean", *way_out)
    assert table(tmp_path / "clean" / "README.md").keys() == {"MIT"}
    assert "\nlicense: apache-2.0\n" in (tmp_path / "clean" / "README.md").read_text()
    assert "Warning" not in capsys.readouterr().err


@pytest.mark.parametrize(("share", "expected"), [("0", 0.0), ("0.5", 0.5)])
def test_the_share_of_short_responses_is_obeyed(
    tiny_dir: Path, tmp_path: Path, share: str, expected: float
) -> None:
    from experts.examples import choose, read_rows, split_rows, tokenise

    data = write_rows(tmp_path / "rows.jsonl", labels=90)
    train(tiny_dir, data, tmp_path / "shelf", "--short-share", share)
    config = (tmp_path / "shelf" / "README.md").read_text()
    rows = table(tmp_path / "shelf" / "README.md")["MIT"]
    assert f"| rows | {rows} |" in config
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_dir)
    training, _ = split_rows(read_rows([data]), 0.2, 0)
    examples = [e for row in training if (e := tokenise(tokenizer, row, 512))]
    chosen = choose(examples, 300, 0, short_share=expected)
    trained = sum(e.response_length for e in chosen)
    assert f"| trained tokens (responses) | {trained} |" in config
    assert rows == len(chosen)
    assert rows != len(choose(examples, 300, 0))


@pytest.mark.parametrize(
    "options",
    [
        ("--rank", "0"),
        ("--held-out", "0"),
        ("--held-out", "1"),
        ("--held-out-rows", "0"),
        ("--epochs", "0"),
        ("--batch-tokens", "-1"),
        ("--learning-rate", "0"),
        ("--short-share", "1.5"),
        ("--threads", "-1"),
    ],
)
def test_a_number_that_makes_no_sense_is_refused_by_name(
    tiny_dir: Path, tmp_path: Path, options: tuple[str, str]
) -> None:
    data = write_rows(tmp_path / "rows.jsonl")
    with pytest.raises(click.BadParameter) as caught:
        train(tiny_dir, data, tmp_path / "shelf", *options)
    assert options[0] in caught.value.format_message()
    assert not (tmp_path / "shelf").exists()


def test_data_that_leaves_nothing_says_what_to_change(tiny_dir: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl")
    with pytest.raises(click.ClickException, match="0 rows to train on and 0 held out"):
        train(tiny_dir, data, tmp_path / "shelf", "--exclude-license", "mit")


def test_a_damaged_checkpoint_is_one_readable_message(tiny_dir: Path, tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl")
    (tmp_path / "shelf.checkpoint").mkdir()
    (tmp_path / "shelf.checkpoint" / "state.safetensors").write_bytes(b"junk")
    with pytest.raises(click.ClickException, match="is damaged .* delete it to begin anew"):
        train(tiny_dir, data, tmp_path / "shelf")


def test_the_cards_command_has_no_folders_of_the_machine(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "rows.jsonl")
    shown = _command(
        ["train", "--data", str(data), f"--out={tmp_path}/new", "--exclude-license", "a/b c"]
    )
    assert shown == "collegium train --data rows.jsonl --out=new --exclude-license 'a/b c'"
