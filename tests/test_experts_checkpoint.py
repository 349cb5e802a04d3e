"""A training run that is killed while it writes: what is left on the disk is always usable."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from experts.checkpoint import Checkpoint, CheckpointError, Saved

# Trains into argv[2] over the base argv[1]. Whenever the second checkpoint (after step 4) touches a
# file, what is on the disk is copied below argv[3]; argv[4] is the name of the event to die at.
TRAIN = """
import json, os, shutil, signal, sys
from pathlib import Path

from transformers import AutoModelForCausalLM, AutoTokenizer

from experts.examples import Row, tokenise
from experts.training import Lessons, TrainingOptions, train_adapter

base, folder, states, fatal = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4]
tokenizer = AutoTokenizer.from_pretrained(base)
rows = [Row(str(n), f"What is {n}?", f"It is {n} or more.") for n in range(24)]
examples = [tokenise(tokenizer, row, 64) for row in rows]
options = TrainingOptions(rank=2, batch_tokens=100, checkpoint_every=2)
steps, watching, seen = [], False, 0

def watch(event, arguments):
    global watching, seen
    touched = any(".checkpoint" in str(a) or ".writing" in str(a) for a in arguments)
    if watching and steps and steps[-1] == 4 and touched:
        watching = False
        seen += 1
        shutil.copytree(folder.parent, states / str(seen))
        if event == fatal:
            os.kill(os.getpid(), signal.SIGKILL)
        watching = True

def on_step(step):
    global watching
    watching = fatal != "never"
    steps.append(step.number)

sys.addaudithook(watch)
model = AutoModelForCausalLM.from_pretrained(base)
train_adapter(model, Lessons(examples, []), folder, options, on_step, "tiny")
sys.stdout.write(json.dumps(steps))
"""


def train(base: Path, folder: Path, states: Path, fatal: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", TRAIN, str(base), str(folder), str(states), fatal],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[1],
    )


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "adapter_model.safetensors")


@pytest.fixture(scope="module")
def killed(tiny_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The disk before every touch of a checkpoint that a run was killed in; and an unkilled run."""
    root = tmp_path_factory.mktemp("runs")
    (root / "run").mkdir()
    run = train(tiny_dir, root / "run" / "adapter", root / "states", "os.rename")
    assert run.returncode == -signal.SIGKILL, run.stderr
    shutil.copytree(root / "run", root / "states" / "killed")
    whole = train(tiny_dir, root / "whole" / "adapter", root, "never")
    assert json.loads(whole.stdout)[:5] == [1, 2, 3, 4, 5], whole.stderr
    return root / "states", root / "whole" / "adapter"


def test_a_run_that_is_killed_in_a_checkpoint_goes_on_from_the_one_before(
    killed: tuple[Path, Path], tiny_dir: Path
) -> None:
    states, whole = killed
    found = sorted(states.iterdir())
    assert len(found) >= 3
    assert any(list(state.rglob("*.writing")) for state in found)
    resumed = train(tiny_dir, states / "killed" / "adapter", states, "never")
    assert json.loads(resumed.stdout)[0] == 3, resumed.stderr
    expected, after = weights(whole), weights(states / "killed" / "adapter")
    assert expected.keys() == after.keys() and len(expected) > 10
    assert all(torch.equal(expected[name], after[name]) for name in expected)
    left = sorted(path.name for path in (states / "killed").iterdir())
    assert left == ["adapter"]


def test_every_state_of_the_disk_while_a_checkpoint_is_written_has_one_that_loads(
    killed: tuple[Path, Path],
) -> None:
    for state in sorted(killed[0].glob("[0-9]*")):
        held = load_file(state / "adapter.checkpoint" / "state.safetensors")
        assert len(held) > 30, state


def tensors(value: float) -> dict[str, torch.Tensor]:
    return {"p:a": torch.full((3, 2), value), "m:a": torch.full((2,), -value)}


def assert_holds(checkpoint: Checkpoint, done: int, value: float) -> None:
    saved = checkpoint.load()
    assert saved is not None and (saved.done, saved.seconds) == (done, done / 2)
    assert {n: t.tolist() for n, t in saved.tensors.items()} == {
        n: t.tolist() for n, t in tensors(value).items()
    }


def test_the_half_written_file_of_a_crash_is_passed_over_and_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "adapter.checkpoint"
    checkpoint = Checkpoint(folder, "f")
    assert checkpoint.load() is None
    checkpoint.save(Saved(2, 1.0, tensors(0.5)))
    whole = (folder / "state.safetensors").read_bytes()
    for kept in (0, 7, len(whole) // 2, len(whole) - 1, len(whole)):
        (folder / "state.writing").write_bytes(whole[:kept])
        assert_holds(Checkpoint(folder, "f"), 2, 0.5)
    checkpoint.save(Saved(4, 2.0, tensors(0.25)))
    assert_holds(Checkpoint(folder, "f"), 4, 0.25)
    assert [path.name for path in folder.iterdir()] == ["state.safetensors"]


def test_a_crash_in_the_first_checkpoint_leaves_none(tmp_path: Path) -> None:
    (tmp_path / "state.writing").write_bytes(b"half")
    checkpoint = Checkpoint(tmp_path, "f")
    assert checkpoint.load() is None
    checkpoint.save(Saved(2, 1.0, tensors(0.5)))
    assert_holds(checkpoint, 2, 0.5)


def test_the_checkpoint_of_another_run_counts_as_none(tmp_path: Path) -> None:
    Checkpoint(tmp_path, "f").save(Saved(2, 1.0, tensors(0.5)))
    assert Checkpoint(tmp_path, "g").load() is None
    Checkpoint(tmp_path, "g").save(Saved(4, 2.0, tensors(0.25)))
    assert Checkpoint(tmp_path, "f").load() is None


def test_a_damaged_checkpoint_is_named_with_what_to_do(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path, "f")
    checkpoint.save(Saved(2, 1.0, tensors(0.5)))
    path = tmp_path / "state.safetensors"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match=r"state\.safetensors' is damaged .*begin anew"):
        checkpoint.load()


def test_a_finished_run_leaves_no_checkpoint(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "c", "f")
    checkpoint.save(Saved(2, 1.0, tensors(0.5)))
    checkpoint.remove()
    assert not (tmp_path / "c").exists()
    checkpoint.remove()
