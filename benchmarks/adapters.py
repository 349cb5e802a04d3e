"""Random adapters over the embedded base, in the shape of the embedded experts.

    python -m benchmarks.adapters --count 1000 --out DIR

Each is a valid PEFT folder with weights of its own, 4.9 MB; 1,000 take 4.9 GB. The values are
small, so that a model with one of them still writes sane text. The same seed writes the same
folders.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import track
from safetensors.numpy import load_file, save_file

from experts.adapters import CONFIG_FILE, EMBEDDED, WEIGHTS_FILE

TEMPLATE = EMBEDDED / "code"
# Standard deviations; those of the embedded experts are 0.02 to 0.03 (A) and about 0.012 (B).
SPREADS = {"lora_A": 0.028, "lora_B": 0.004}


class CannotWrite(ValueError):
    """The folder does not suit; the message says why."""


def write_adapters(out: Path, count: int, seed: int = 0) -> list[Path]:
    """Write `count` adapter folders below `out` and return them.

    Raises:
        CannotWrite: `out` is not an empty folder, or the disk lacks the room.
    """
    _check(out, count)
    out.mkdir(parents=True, exist_ok=True)
    shapes = {key: tensor.shape for key, tensor in load_file(TEMPLATE / WEIGHTS_FILE).items()}
    console = Console(stderr=True)
    numbers: Iterable[int] = track(range(count), "adapters", console=console)
    return [_write(out / f"adapter-{number:04}", shapes, [seed, number]) for number in numbers]


def adapter_folders(folder: Path) -> list[Path]:
    """The adapter folders below a folder, by name."""
    return sorted(path.parent for path in folder.glob(f"*/{CONFIG_FILE}"))


def _check(out: Path, count: int) -> None:
    if out.exists() and not out.is_dir():
        raise CannotWrite(f"{str(out)!r} is a file: name a folder that is empty or not there yet")
    if out.is_dir() and any(out.iterdir()):
        raise CannotWrite(f"{str(out)!r} is not empty: name another folder, or empty it first")
    existing = next(path for path in (out, *out.absolute().parents) if path.is_dir())
    needed = count * (TEMPLATE / WEIGHTS_FILE).stat().st_size
    free = shutil.disk_usage(existing).free
    if needed > free:
        raise CannotWrite(
            f"{count} adapters take {needed / 1e9:.1f} GB, {str(existing)!r} has {free / 1e9:.1f}"
        )


def _write(folder: Path, shapes: dict[str, tuple[int, ...]], seed: list[int]) -> Path:
    dice = np.random.default_rng(seed)
    tensors = {}
    for key, shape in shapes.items():
        values = dice.standard_normal(shape, dtype=np.float32) * SPREADS[key.split(".")[-2]]
        tensors[key] = values.astype(np.float16)
    folder.mkdir()
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    # The configuration goes last: without it the folder is no adapter, if this is interrupted.
    shutil.copyfile(TEMPLATE / CONFIG_FILE, folder / CONFIG_FILE)
    return folder


def main() -> None:
    """Write the folders."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.adapters",
        description="Write random LoRA adapters over the embedded base.",
        epilog="Each takes 4.9 MB and has weights of its own: 1,000 take 4.9 GB.",
    )
    parser.add_argument("--count", type=_positive, default=1000, help="adapters; default 1000")
    parser.add_argument("--out", type=Path, required=True, help="an empty or a new folder")
    parser.add_argument("--seed", type=int, default=0, help="another seed, other weights")
    options = parser.parse_args()
    try:
        write_adapters(options.out, options.count, options.seed)
    except CannotWrite as error:
        raise SystemExit(f"error: {error}") from error


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value


if __name__ == "__main__":
    main()
