"""Losses of known answers under several experts at once: packed rows of one base model."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn.functional import cross_entropy

from experts.arena import RowCache
from experts.examples import Example
from experts.lowrank import Gate
from experts.runner import Runner, Work

STEP_TOKENS = 1024
STEP_TOKENS_ON_CUDA = 8192
"""A step of few tokens leaves a GPU idle; more than these need gigabytes for their logits."""


@dataclass(frozen=True)
class AnswerLosses:
    """Losses in nats of an example's response under each expert.

    `losses` are means over its tokens, `by_token` the losses of each token [expert][token].
    """

    example: Example
    losses: tuple[float, ...]
    by_token: tuple[tuple[float, ...], ...]


def answer_losses(
    runner: Runner,
    gates: Sequence[Gate],
    examples: Sequence[Example],
    on_rows: Callable[[int, int], None] = lambda _done, _total: None,
) -> Iterator[AnswerLosses]:
    """Yield the losses of every example under every gate, in order, as they are computed."""
    done = 0
    on_cuda = runner.device.type == "cuda"
    step = min(STEP_TOKENS_ON_CUDA if on_cuda else STEP_TOKENS, runner.arena.capacity)
    for batch in _batches(examples, len(gates), step):
        works = [_work(runner, gate, example) for example in batch for gate in gates]
        with torch.inference_mode():
            found = [
                cross_entropy(logits.float(), _targets(example, logits), reduction="none")
                for (_, example), logits in zip(
                    works, runner.run([work for work, _ in works]), strict=True
                )
            ]
        for work, _ in works:
            work.cache.rewind(0)
            runner.arena.release(work.cache, (), ())
        for number, example in enumerate(batch):
            part = found[number * len(gates) : (number + 1) * len(gates)]
            means = tuple(float(losses.mean()) for losses in part)
            yield AnswerLosses(example, means, tuple(tuple(losses.tolist()) for losses in part))
        done += len(batch)
        on_rows(done, len(examples))


def _batches(examples: Sequence[Example], rows: int, step: int) -> Iterator[list[Example]]:
    batch: list[Example] = []
    size = 0
    for example in examples:
        cost = len(example.tokens) * rows
        if batch and size + cost > step:
            yield batch
            batch, size = [], 0
        batch.append(example)
        size += cost
    if batch:
        yield batch


def _work(runner: Runner, gate: Gate, example: Example) -> tuple[Work, Example]:
    # The last token predicts nothing that is measured.
    tokens = example.tokens[:-1]
    cache: RowCache | None = runner.arena.reserve(len(tokens))
    if cache is None:
        raise MemoryError(f"{runner.arena.capacity} tokens of cache do not hold a batch")
    return Work(cache, gate, tokens, range(example.prompt_length - 1, len(tokens))), example


def _targets(example: Example, logits: torch.Tensor) -> torch.Tensor:
    return torch.tensor(example.tokens[example.prompt_length :], device=logits.device)
