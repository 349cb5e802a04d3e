"""vLLM in a process of its own, asked through standard input and output.

Runs under an interpreter that has vLLM and nothing of ours. A line in is a JSON object with
`prompts` (lists of token ids), `experts` (their adapters' names) and `count`; the line out has
`seconds` and the answers' token ids, `answers`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from typing import Any


def main() -> None:
    """Serve until the input ends. Arguments: settings of `LLM`, adapter name → folder, as JSON."""
    # vLLM writes its log to the process's output, which is ours to answer on.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    import vllm  # type: ignore[import-not-found,unused-ignore]
    from vllm.lora.request import LoRARequest  # type: ignore[import-not-found,unused-ignore]

    folders: dict[str, str] = json.loads(sys.argv[2])
    adapters = {
        name: LoRARequest(name, number, folder)
        for number, (name, folder) in enumerate(folders.items(), start=1)
    }
    engine = vllm.LLM(**json.loads(sys.argv[1]))
    mode = engine.llm_engine.vllm_config.compilation_config.mode
    greeting = {"version": vllm.__version__, "compilation": getattr(mode, "name", str(mode))}
    answers.write(json.dumps(greeting) + "\n")
    for line in sys.stdin:
        answers.write(json.dumps(answer(engine, adapters, json.loads(line))) + "\n")


def answer(engine: Any, adapters: dict[str, Any], order: dict[str, Any]) -> dict[str, Any]:  # noqa: ANN401
    """Greedy answers of `count` tokens, all requests at once."""
    from vllm import SamplingParams

    count = order["count"]
    started = time.perf_counter()
    found = engine.generate(
        [{"prompt_token_ids": prompt} for prompt in order["prompts"]],
        SamplingParams(temperature=0, max_tokens=count, ignore_eos=True, detokenize=True),
        lora_request=[adapters[name] for name in order["experts"]],
        use_tqdm=False,
    )
    took = time.perf_counter() - started
    tokens = [list(one.outputs[0].token_ids) for one in found]
    if any(len(one) != count for one in tokens):
        raise RuntimeError(f"vLLM was to write {count} tokens each, not {[len(t) for t in tokens]}")
    return {"seconds": took, "answers": tokens}


if __name__ == "__main__":
    main()
