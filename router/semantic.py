"""aurelio's semantic-router on our sentence vectors, in an interpreter of its own.

Its requirements do not agree with ours (another `openai`), so it is asked through files.
"""

import json
import os
import subprocess
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from router.features import Vector
from router.peers import Answers, Lessons, Peer, PeerError, apart

NAME = "semantic-router"
SETTINGS = tuple(
    {"aggregation": aggregation, "top_k": top_k}
    for aggregation in ("mean", "sum", "max")
    for top_k in (5, 20)
)
CHILD = Path(__file__).with_name("semantic_child.py")


def check_interpreter(python: str) -> None:
    """Raise `PeerError` unless `python` is an interpreter with semantic-router 1."""
    try:
        found = _run(python, ["-c", "from semantic_router import IndexedRouter"])
    except OSError as error:
        raise PeerError(f"{python}: cannot be run ({error.strerror}).") from error
    if found.returncode:
        last = (found.stderr.strip().splitlines() or ["no message"])[-1]
        raise PeerError(f"{python}: has no semantic-router 1 ({last}).")


def semantic_router(python: str, taught: Lessons) -> Peer:
    """Return the peer that the interpreter `python` runs, tuned over `SETTINGS`.

    Answering raises `PeerError` where it fails there.
    """
    return Peer(NAME, partial(_answer, python, taught))


def _answer(python: str, taught: Lessons, vectors: Vector) -> Answers:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        np.ascontiguousarray(taught.vectors, dtype="<f4").tofile(folder / "taught.f32")
        np.ascontiguousarray(vectors, dtype="<f4").tofile(folder / "asked.f32")
        job = {
            "dimensions": int(vectors.shape[1]),
            "labels": taught.labels,
            "apart": apart(taught).tolist(),
            "settings": SETTINGS,
        }
        (folder / "job.json").write_text(json.dumps(job), encoding="utf-8")
        # As text, so that our modules are not on its path.
        done = _run(python, ["-c", CHILD.read_text(encoding="utf-8"), name])
        if done.returncode:
            raise PeerError(f"{python}: semantic-router failed: {done.stderr.strip()[-2000:]}")
        found = json.loads((folder / "answers.json").read_text(encoding="utf-8"))
    seconds = np.asarray(found["seconds"], dtype=np.float64)
    return Answers(tuple(found["names"]), seconds, found["setting"])


def _run(python: str, arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    # What this interpreter is told to import from is not for another one.
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [python, *arguments], capture_output=True, text=True, check=False, env=environment
    )
