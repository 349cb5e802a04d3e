"""Run by an interpreter that has semantic-router 1 and NumPy: fit, tune and answer.

Its only argument is a folder with `job.json`, `taught.f32` and `asked.f32`; `answers.json` is
written into it. It knows nothing of ours, and nothing of ours needs to be installed there.
"""

import asyncio
import json
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Vectors = npt.NDArray[np.float32]

WARM_DECISIONS = 20


def main(folder: Path) -> None:
    """Do the job that lies in the folder."""
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    taught, asked = (_read(folder / name, job) for name in ("taught.f32", "asked.f32"))
    labels, apart = np.array(job["labels"]), np.array(job["apart"], dtype=bool)
    scores = {}
    for number, setting in enumerate(job["settings"]):
        names, _ = answer(taught[~apart], labels[~apart].tolist(), setting, taught[apart])
        scores[number] = float(np.mean(np.array(names) == labels[apart]))
    best = job["settings"][max(scores, key=lambda number: scores[number])]
    names, seconds = answer(taught, labels.tolist(), best, asked)
    said = ", ".join(f"{key} {value}" for key, value in best.items())
    found = {"setting": said, "names": names, "seconds": seconds}
    (folder / "answers.json").write_text(json.dumps(found), encoding="utf-8")


def answer(
    taught: Vectors, labels: Sequence[str], setting: dict[str, Any], asked: Vectors
) -> tuple[list[str], list[float]]:
    """The routes chosen for vectors [n, d], one at a time, with the seconds of each."""
    # Its texts are names of vectors, so that all routers share one encoder.
    known = {f"taught {place}": vector.tolist() for place, vector in enumerate(taught)}
    known |= {f"asked {place}": vector.tolist() for place, vector in enumerate(asked)}
    package = import_module("semantic_router")

    class Known(import_module("semantic_router.encoders").DenseEncoder):  # type: ignore[misc]
        def __call__(self, docs: Sequence[str]) -> list[list[float]]:
            return [known[doc] for doc in docs]

        async def acall(self, docs: Sequence[str]) -> list[list[float]]:
            return self(docs)

    routes = [
        package.Route(
            name=label, utterances=[f"taught {n}" for n, own in enumerate(labels) if own == label]
        )
        for label in sorted(set(labels))
    ]
    # Without a threshold it answers every prompt, as the others do.
    router = package.IndexedRouter(encoder=Known(name="vectors"), routes=routes, **setting)
    return asyncio.run(_ask(router, [f"asked {place}" for place in range(len(asked))]))


async def _ask(router: Any, texts: Sequence[str]) -> tuple[list[str], list[float]]:  # noqa: ANN401
    # Its synchronous calls go through a thread; these are its quickest.
    for text in texts[:WARM_DECISIONS]:
        await router.acall(text)
    names, seconds = [], []
    for text in texts:
        started = time.perf_counter()
        found = await router.acall(text)
        seconds.append(time.perf_counter() - started)
        names.append(str(found.name))
    return names, seconds


def _read(path: Path, job: dict[str, Any]) -> Vectors:
    return np.fromfile(path, dtype="<f4").reshape(-1, job["dimensions"])


if __name__ == "__main__":
    main(Path(sys.argv[1]))
