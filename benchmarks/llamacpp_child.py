"""llama.cpp's server in a process of its own, asked through standard input and output.

Runs under an interpreter that has `xllamacpp` and nothing of ours. The first line out has the
server's `address`, where it can be asked over HTTP too. A line in is a JSON object with `prompts`
(lists of token ids) and `count`; the line out has `seconds` and the answers' `texts`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


def main() -> None:
    """Serve until the input ends. Arguments: GGUF file, threads, slots, chat template's file."""
    # llama.cpp writes its log to the process's output, which is ours to answer on.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    slots = int(sys.argv[3])
    server = start(sys.argv[1], int(sys.argv[2]), slots, Path(sys.argv[4]))
    answers.write(json.dumps({"address": server.listening_address}) + "\n")
    with ThreadPoolExecutor(slots) as pool:
        for line in sys.stdin:
            order = json.loads(line)
            started = time.perf_counter()
            count = order["count"]
            jobs = [pool.submit(complete, server, prompt, count) for prompt in order["prompts"]]
            texts = [job.result() for job in jobs]
            took = time.perf_counter() - started
            answers.write(json.dumps({"seconds": took, "texts": texts}) + "\n")


def start(path: str, threads: int, slots: int, template: Path) -> Any:  # noqa: ANN401
    """The server with `slots` slots of 512 tokens."""
    import xllamacpp  # type: ignore[import-not-found,unused-ignore]

    params = xllamacpp.CommonParams()
    params.model.path = path
    params.n_parallel = slots
    params.n_ctx = 512 * slots
    params.cpuparams.n_threads = threads
    params.cpuparams_batch.n_threads = threads
    params.cache_prompt = False
    params.cache_ram_mib = 0
    params.warmup = True
    params.chat_template = template.read_text(encoding="utf-8")
    params.verbosity = 0
    return xllamacpp.Server(params)


def complete(server: Any, prompt: list[int], count: int) -> str:  # noqa: ANN401
    """One greedy answer of `count` tokens."""
    body = {
        "prompt": prompt,
        "max_tokens": count,
        "temperature": 0,
        "top_k": 1,
        "ignore_eos": True,
        "cache_prompt": False,
    }
    answer = server.handle_completions(body)
    written = answer.get("usage", {}).get("completion_tokens")
    if written != count:
        raise RuntimeError(f"llama.cpp was to write {count} tokens and answered {answer}")
    return str(answer["choices"][0]["text"])


if __name__ == "__main__":
    main()
