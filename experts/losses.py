"""Cross-entropy of responses under a causal language model, with or without an adapter.

The vocabulary projection, a fifth of the work of a small model, is computed at the positions of the
response alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch.nn import functional

from experts.examples import Example, bucket
from experts.invocation import last_occurrence

_IGNORED = -100


def token_losses(
    model: Any,  # noqa: ANN401
    batch: Sequence[Example],
    invocation: Sequence[int] = (),
) -> torch.Tensor:
    """Cross-entropy in nats of every response token of the batch, flattened row by row.

    `invocation`: the adapter of a PEFT model acts from these tokens on.
    """
    logits, targets = _answers(model, batch, invocation)
    return functional.cross_entropy(logits, targets, reduction="none")


def divergences(
    model: Any,  # noqa: ANN401
    batch: Sequence[Example],
    invocation: Sequence[int] = (),
) -> torch.Tensor:
    """Kullback-Leibler divergence in nats from a PEFT model's base to the model with its adapter.

    One value for every response token of the batch, flattened row by row, with gradients of the
    adapter alone: zero where the adapter changes nothing.
    """
    with torch.no_grad(), model.disable_adapter():
        before, _ = _answers(model, batch)
    after, _ = _answers(model, batch, invocation)
    known = functional.log_softmax(before, dim=-1)
    found = functional.log_softmax(after, dim=-1)
    return functional.kl_div(found, known, reduction="none", log_target=True).sum(dim=-1)


def mean_divergence(
    model: Any,  # noqa: ANN401
    examples: Sequence[Example],
    batch_tokens: int,
    invocation: Sequence[int] = (),
) -> float:
    """Mean divergence in nats per response token; NaN without examples."""
    total, tokens = 0.0, 0
    was_training = model.training
    model.eval()
    with torch.no_grad():
        for batch in bucket(examples, batch_tokens, seed=0):
            found = divergences(model, batch, invocation)
            total, tokens = total + float(found.sum()), tokens + found.numel()
    model.train(was_training)
    return total / tokens if tokens else math.nan


def _answers(
    model: Any,  # noqa: ANN401
    batch: Sequence[Example],
    invocation: Sequence[int] = (),
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [tokens, vocabulary] in float32 and ids [tokens] of all response tokens."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    device = next(causal.parameters()).device
    width = max(len(e.tokens) for e in batch)
    ids = torch.zeros(len(batch), width, dtype=torch.long)
    mask = torch.zeros(len(batch), width, dtype=torch.long)
    labels = torch.full((len(batch), width), _IGNORED)
    for row, example in enumerate(batch):
        length = len(example.tokens)
        ids[row, :length] = torch.tensor(example.tokens)
        mask[row, :length] = 1
        labels[row, example.prompt_length : length] = ids[row, example.prompt_length : length]
    with _acting_from(starts_of(batch, invocation), model, width):
        hidden = causal.get_decoder()(input_ids=ids.to(device), attention_mask=mask.to(device))[0]
    targets = labels[:, 1:].to(device)
    trained = targets != _IGNORED
    logits = causal.get_output_embeddings()(hidden[:, :-1][trained])
    return logits.float(), targets[trained]


def row_losses(
    model: Any,  # noqa: ANN401
    examples: Sequence[Example],
    batch_tokens: int,
    on_batch: Callable[[int, int], None] = lambda _done, _total: None,
    invocation: Sequence[int] = (),
    on_start: Callable[[Sequence[Example]], None] = lambda _batch: None,
) -> list[tuple[Example, float]]:
    """Summed loss (nats) of each example's response, without gradients.

    `on_start` is called with each batch before it is run, `on_batch` with (done, total) after it.
    """
    found: list[tuple[Example, float]] = []
    was_training = model.training
    model.eval()
    batches = bucket(examples, batch_tokens, seed=0)
    with torch.inference_mode():
        for number, batch in enumerate(batches, start=1):
            on_start(batch)
            lengths = [e.response_length for e in batch]
            losses = torch.split(token_losses(model, batch, invocation), lengths)
            found += [(e, float(part.sum())) for e, part in zip(batch, losses, strict=True)]
            on_batch(number, len(batches))
    model.train(was_training)
    return found


def mean_loss(
    model: Any,  # noqa: ANN401
    examples: Sequence[Example],
    batch_tokens: int,
    invocation: Sequence[int] = (),
) -> float:
    """Mean loss in nats per response token; NaN without examples."""
    rows = row_losses(model, examples, batch_tokens, invocation=invocation)
    tokens = sum(e.response_length for e, _ in rows)
    return sum(loss for _, loss in rows) / tokens if tokens else math.nan


@contextmanager
def _acting_from(starts: Sequence[int] | None, model: Any, width: int) -> Iterator[None]:  # noqa: ANN401
    """Silence the model's adapter before position `starts[row]` of each row; None: nowhere.

    PEFT's own activated LoRA gives the same, layer by layer through an index of the rows, which
    takes longer than the update itself.
    """
    handles = []
    if starts is not None:
        device = next(model.parameters()).device
        places = torch.arange(width, device=device)
        acts = (places >= torch.tensor(starts, device=device)[:, None])[..., None]
        for name, module in model.named_modules():
            if ".lora_B." in name:
                handles.append(module.register_forward_hook(lambda _m, _x, out: out * acts))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def starts_of(batch: Sequence[Example], invocation: Sequence[int]) -> list[int] | None:
    """Where an adapter that waits for `invocation` begins to act in each row.

    Like PEFT: from its last occurrence in the prompt, nowhere without one; None if it waits for
    nothing.
    """
    if not invocation:
        return None
    found = [last_occurrence(e.tokens[: e.prompt_length], invocation) for e in batch]
    return [len(e.tokens) if at is None else at for e, at in zip(batch, found, strict=True)]
