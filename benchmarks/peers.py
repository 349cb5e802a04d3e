"""The same model inside transformers and PEFT, as their users run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, GenerationConfig, StaticCache
from transformers.generation.configuration_utils import ContinuousBatchingConfig

# The default page of 256 tokens and a batch sized by free memory are for GPUs. These are smaller
# and have not been tuned: measure others before the figures of this peer are quoted.
PAGE, BLOCKS, BATCH_TOKENS = 32, 768, 256
NO_END = -1


def _model(folder: Path, device: str, dtype: torch.dtype) -> Any:  # noqa: ANN401
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).to(device)
    return model.eval().requires_grad_(False)


def _greedy(count: int) -> GenerationConfig:
    # Without an end token every answer has its full length, on both sides.
    return GenerationConfig(
        do_sample=False, max_new_tokens=count, eos_token_id=NO_END, pad_token_id=2
    )


class Plain:
    """transformers' `generate`, greedy, one request at a time."""

    def __init__(
        self, folder: Path, device: str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        self._model = _model(folder, device, dtype)

    @torch.inference_mode()
    def generate(self, prompt: Sequence[int], count: int, guesses: int = 0) -> list[int]:
        """`count` new tokens; `guesses`: tokens of prompt lookup, which transformers has too."""
        return _generate(self._model, prompt, count, guesses)

    @torch.inference_mode()
    def gaps(self, prompt: Sequence[int], tokens: Sequence[int]) -> list[float]:
        """Difference of the two best logits at each place of an answer."""
        return _gaps(self._model, prompt, tokens)


class Peer:
    """The model inside PEFT with several adapters; `general` is the base without any."""

    def __init__(
        self,
        folder: Path,
        adapters: Mapping[str, Path],
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        first, *others = adapters.items()
        self._peft: Any = PeftModel.from_pretrained(
            _model(folder, device, dtype), first[1], adapter_name=first[0]
        ).eval()
        for name, path in others:
            self._peft.load_adapter(path, adapter_name=name)
        self._peft.requires_grad_(False)
        self._config = self._peft.config

    def use(self, expert: str) -> None:
        """Switch the whole model to one expert."""
        tuner = self._peft.base_model
        if expert == "general":
            tuner.disable_adapter_layers()
        else:
            tuner.enable_adapter_layers()
            self._peft.set_adapter(expert)

    @torch.inference_mode()
    def generate(self, prompt: Sequence[int], count: int) -> list[int]:
        """`count` new tokens of the expert in use."""
        return _generate(self._peft, prompt, count)

    @torch.inference_mode()
    def gaps(self, prompt: Sequence[int], tokens: Sequence[int]) -> list[float]:
        """Difference of the two best logits of the expert in use at each place of an answer."""
        return _gaps(self._peft, prompt, tokens)

    @torch.inference_mode()
    def prefill(
        self, ids: torch.Tensor, room: int, names: Sequence[str] | None = None
    ) -> StaticCache:
        """A cache that holds `ids` [rows, tokens], with room for more, each row by its adapter."""
        cache = StaticCache(config=self._config, max_cache_len=ids.shape[1] + room)
        self._forward(ids, cache, names)
        return cache

    @torch.inference_mode()
    def step(
        self, ids: torch.Tensor, cache: StaticCache, names: Sequence[str] | None = None
    ) -> torch.Tensor:
        """Logits [rows, vocabulary] for one more token [rows, 1], which is then forgotten."""
        logits = self._forward(ids, cache, names)
        for layer in cache.layers:
            layer.cumulative_length.sub_(ids.shape[1])
        return logits

    def batching(self) -> AbstractContextManager[Any]:
        """The manager behind `generate_batch`, for the expert in use.

        `generate_batch` itself knows one answer length for all requests; the manager takes one for
        each.
        """
        settings = ContinuousBatchingConfig(
            page_size=PAGE, num_blocks=BLOCKS, max_batch_tokens=BATCH_TOKENS
        )
        manager: AbstractContextManager[Any] = (
            self._peft.base_model.model.continuous_batching_context_manager(
                generation_config=_greedy(64), continuous_batching_config=settings
            )
        )
        return manager

    def _forward(
        self, ids: torch.Tensor, cache: StaticCache, names: Sequence[str] | None
    ) -> torch.Tensor:
        extra = {} if names is None else {"adapter_names": list(names)}
        out = self._peft(
            input_ids=ids.to(self._peft.device), past_key_values=cache, logits_to_keep=1, **extra
        )
        logits: torch.Tensor = out.logits[:, -1]
        return logits


def _generate(
    model: Any,  # noqa: ANN401
    prompt: Sequence[int],
    count: int,
    guesses: int = 0,
) -> list[int]:
    settings = _greedy(count)
    settings.prompt_lookup_num_tokens = guesses or None
    ids = torch.tensor([list(prompt)], device=model.device)
    out = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), generation_config=settings
    )
    return [int(token) for token in out[0, len(prompt) :]]


def _gaps(model: Any, prompt: Sequence[int], tokens: Sequence[int]) -> list[float]:  # noqa: ANN401
    ids = torch.tensor([[*prompt, *tokens]], device=model.device)
    logits = model(input_ids=ids).logits[0, len(prompt) - 1 : -1]
    best = logits.topk(2, dim=-1).values
    return [float(gap) for gap in best[:, 0] - best[:, 1]]
