"""Training of one expert: a LoRA adapter over a frozen base (Hu et al. 2021, arXiv 2106.09685).

Loss is the mean cross-entropy of the response tokens only. Batches hold rows of similar length. A
run that is stopped continues from its last checkpoint to the same weights.

Rows of other domains can be given to be left alone: on them the adapter is held to the base by the
divergence from its predictions (learning without forgetting, Li & Hoiem 2016, arXiv 1606.09282).
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from experts.checkpoint import Checkpoint, Saved, settle
from experts.examples import Example, bucket
from experts.losses import divergences, mean_divergence, mean_loss, token_losses

TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True)
class TrainingOptions:
    """What decides the weights of an adapter, besides data and base.

    With `invocation` tokens the adapter acts only from their last occurrence in the prompt on
    (activated LoRA, Greenewald et al. 2025, arXiv 2504.12397); before them the base is alone.
    `keep_weight` is that of the divergence on rows to leave alone, beside a loss of weight 1.
    """

    rank: int = 8
    alpha: int = 16
    learning_rate: float = 1e-3
    warmup: float = 0.05
    epochs: int = 1
    batch_tokens: int = 1024
    max_length: int = 512
    seed: int = 0
    checkpoint_every: int = 50
    targets: tuple[str, ...] = TARGETS
    invocation: tuple[int, ...] = ()
    keep_weight: float = 1.0


@dataclass(frozen=True)
class Step:
    """One optimiser step, for the progress bar. `loss` in nats per token; times in seconds."""

    number: int
    total: int
    loss: float
    tokens: int
    elapsed: float

    @property
    def remaining(self) -> float:
        """Seconds left at the present pace."""
        return self.elapsed / max(self.number, 1) * (self.total - self.number)


@dataclass
class TrainingReport:
    """What a run did. Losses are nats per response token on the held-out rows.

    `kept` rows were to be left alone; `divergence` is from the base, in nats per response token, on
    held-out rows of their kind.
    """

    rows: int
    trained_tokens: int
    steps: int
    seconds: float
    loss_before: float
    loss_after: float
    options: dict[str, Any] = field(default_factory=dict)
    kept: int = 0
    divergence: float = math.nan


@dataclass(frozen=True)
class Lessons:
    """Rows to learn and rows to leave alone, each with some that are only measured on."""

    learn: Sequence[Example]
    held_out: Sequence[Example]
    keep: Sequence[Example] = ()
    kept_out: Sequence[Example] = ()


def train_adapter(
    model: Any,  # noqa: ANN401
    lessons: Lessons,
    folder: Path,
    options: TrainingOptions,
    on_step: Callable[[Step], None] = lambda _step: None,
    base: str = "",
) -> TrainingReport:
    """Train an adapter over `model` and write it to `folder` as a PEFT folder in float16.

    `base` is the name that the adapter will record for its base model.

    A `.checkpoint` folder beside the adapter holds the state of an unfinished run; the same call
    continues from it and removes it at the end.

    Raises:
        experts.checkpoint.CheckpointError: the file in that folder is damaged.
    """
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(options.seed)
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        target_modules=list(options.targets),
        task_type="CAUSAL_LM",
    )
    peft_model = get_peft_model(model, config, autocast_adapter_dtype=False)
    run = _Run(peft_model, lessons, folder, options, base)
    before = mean_loss(peft_model, lessons.held_out, options.batch_tokens, options.invocation)
    seconds = run.train(on_step)
    after = mean_loss(peft_model, lessons.held_out, options.batch_tokens, options.invocation)
    apart = mean_divergence(peft_model, lessons.kept_out, options.batch_tokens, options.invocation)
    save_adapter(peft_model, folder, base, options.invocation)
    run.checkpoint.remove()
    return TrainingReport(
        rows=len(lessons.learn),
        trained_tokens=sum(e.response_length for e in lessons.learn) * options.epochs,
        steps=len(run.batches),
        seconds=seconds,
        loss_before=before,
        loss_after=after,
        options=asdict(options),
        kept=len(lessons.keep),
        divergence=apart,
    )


class _Run:
    """State of one run: parameters, optimiser, schedule, position."""

    def __init__(
        self,
        model: Any,  # noqa: ANN401
        lessons: Lessons,
        folder: Path,
        options: TrainingOptions,
        base: str,
    ) -> None:
        self.model, self.options = model, options
        self.batches = [
            batch
            for epoch in range(options.epochs)
            for batch in bucket(lessons.learn, options.batch_tokens, options.seed + epoch)
        ]
        self.kept = _as_many(lessons.keep, len(self.batches), options)
        self.parameters = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.optimizer = torch.optim.AdamW(
            self.parameters.values(), lr=options.learning_rate, weight_decay=0.0, betas=(0.9, 0.99)
        )
        total = len(self.batches)
        warmup = max(1, round(total * options.warmup))
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: _cosine(step, warmup, total)
        )
        self.checkpoint = Checkpoint(
            folder.with_name(folder.name + ".checkpoint"),
            _fingerprint([*self.batches, *self.kept], options, base),
        )
        self.done, self.seconds = 0, 0.0

    def train(self, on_step: Callable[[Step], None]) -> float:
        self._restore()
        self.model.train()
        for number in range(self.done, len(self.batches)):
            started = time.perf_counter()
            loss, tokens = self._step(number)
            self.done = number + 1
            self.seconds += time.perf_counter() - started
            on_step(Step(self.done, len(self.batches), loss, tokens, self.seconds))
            if self.done % self.options.checkpoint_every == 0:
                self._save()
        return self.seconds

    def _step(self, number: int) -> tuple[float, int]:
        losses = token_losses(self.model, self.batches[number], self.options.invocation)
        loss = losses.mean()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        if self.kept:
            apart = divergences(self.model, self.kept[number], self.options.invocation).mean()
            (self.options.keep_weight * apart).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.parameters.values(), 1.0)
        self.optimizer.step()
        self.schedule.step()
        return float(loss.detach()), losses.numel()

    def _save(self) -> None:
        tensors = {}
        for name, parameter in self.parameters.items():
            state = self.optimizer.state[parameter]
            tensors[f"p:{name}"] = parameter.detach().contiguous()
            tensors[f"m:{name}"] = state["exp_avg"].contiguous()
            tensors[f"v:{name}"] = state["exp_avg_sq"].contiguous()
        self.checkpoint.save(Saved(self.done, self.seconds, tensors))

    def _restore(self) -> None:
        saved = self.checkpoint.load()
        if saved is not None:
            with torch.no_grad():
                for name, parameter in self.parameters.items():
                    parameter.copy_(saved.tensors[f"p:{name}"])
                    self.optimizer.state[parameter] = {
                        "step": torch.tensor(float(saved.done)),
                        "exp_avg": saved.tensors[f"m:{name}"].to(parameter.device),
                        "exp_avg_sq": saved.tensors[f"v:{name}"].to(parameter.device),
                    }
            self.done, self.seconds = saved.done, saved.seconds
            self.schedule.last_epoch = self.done
            for group, scale in zip(
                self.optimizer.param_groups, self.schedule.lr_lambdas, strict=True
            ):
                group["lr"] = self.options.learning_rate * scale(self.done)


def save_adapter(
    model: Any,  # noqa: ANN401
    folder: Path,
    base: str,
    invocation: Sequence[int] = (),
) -> None:
    """Write a PEFT folder in float16. What a crash leaves is whole, or is refused by the loader."""
    scratch = folder.with_name(folder.name + ".writing")
    shutil.rmtree(scratch, ignore_errors=True)
    model.save_pretrained(scratch, safe_serialization=True)
    path = scratch / "adapter_model.safetensors"
    halves = {name: tensor.to(torch.float16) for name, tensor in load_file(path).items()}
    save_file(halves, path, metadata={"format": "pt"})
    config = json.loads((scratch / "adapter_config.json").read_text())
    # PEFT records where the base lay on this machine, which tells nobody else which one it was.
    config["base_model_name_or_path"] = base
    config["alora_invocation_tokens"] = list(invocation) or None
    (scratch / "adapter_config.json").write_text(json.dumps(config, indent=2, sort_keys=True))
    folder.mkdir(parents=True, exist_ok=True)
    # Weights never lie beside the configuration of others, whose scale may differ unnoticed.
    (folder / "adapter_config.json").unlink(missing_ok=True)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        settle(scratch / name)
        (scratch / name).replace(folder / name)
    settle(folder)
    shutil.rmtree(scratch)


def _as_many(
    examples: Sequence[Example], count: int, options: TrainingOptions
) -> list[list[Example]]:
    """So many batches, in rounds of another order each; none without examples."""
    batches: list[list[Example]] = []
    while examples and len(batches) < count:
        batches += bucket(examples, options.batch_tokens, options.seed + len(batches))
    return batches[:count]


def _cosine(step: int, warmup: int, total: int) -> float:
    if step < warmup:
        scale = (step + 1) / warmup
    else:
        scale = 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
    return scale


def _fingerprint(batches: Sequence[Sequence[Example]], options: TrainingOptions, base: str) -> str:
    import hashlib

    settings = json.dumps([base, asdict(options)], sort_keys=True)
    digest = hashlib.blake2b(settings.encode(), digest_size=16)
    for batch in batches:
        for example in batch:
            digest.update(repr(example.tokens).encode())
    return digest.hexdigest()
