"""LoRA adapters on disk: PEFT folders, read and checked before anything is loaded into a model."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
EMBEDDED = Path(__file__).parent / "adapters"
_UNSUPPORTED = {
    "use_dora": "DoRA",
    "modules_to_save": "modules_to_save",
    "trainable_token_indices": "trained token embeddings",
    "target_parameters": "adapters of bare parameters",
    "layer_replication": "layer replication",
    "lora_bias": "LoRA biases",
    "use_qalora": "QALoRA",
    "use_bdlora": "block-diagonal LoRA",
    "arrow_config": "Arrow routing",
    "kasa_config": "KaSA",
    "monteclora_config": "MonteCLoRA",
}
# These subtract their starting point from the base weights when PEFT loads them.
_REWRITE_THE_BASE = ("pissa", "corda", "olora", "loftq", "lora_ga")
_KEY = re.compile(r"^base_model\.model\.(?P<module>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight$")


class AdapterError(ValueError):
    """An adapter cannot be used with this base; the message gives the folder and the reason."""


@dataclass(frozen=True)
class LoraWeight:
    """The pair of one module: `a` [rank, in], `b` [out, rank], and the scale α/r."""

    a: torch.Tensor
    b: torch.Tensor
    scale: float

    @property
    def rank(self) -> int:
        """Inner dimension of the pair."""
        return int(self.a.shape[0])


@dataclass(frozen=True)
class Adapter:
    """A checked adapter: module path in the base model → its low-rank pair.

    With `invocation` tokens it acts only from their last occurrence in the prompt on.
    """

    name: str
    weights: Mapping[str, LoraWeight]
    invocation: tuple[int, ...] = ()

    def like(self, tensor: torch.Tensor) -> Adapter:
        """The same values with the type and device of `tensor`, laid out as stacks hold them.

        Stacking adapters then copies memory and converts nothing; it may be done in any thread.
        """
        weights = {
            module: LoraWeight(
                pair.a.to(tensor), pair.b.t().to(tensor).contiguous().t(), pair.scale
            )
            for module, pair in self.weights.items()
        }
        return Adapter(self.name, weights, self.invocation)


def embedded_adapters() -> list[str]:
    """Names of the adapters that come with the package."""
    return sorted(p.parent.name for p in EMBEDDED.glob(f"*/{CONFIG_FILE}"))


def load_adapter(
    name: str, folder: Path, linears: Mapping[str, tuple[int, int]], base: str = ""
) -> Adapter:
    """Read and check a PEFT folder against the base model's linear layers.

    Args:
        linears: module path → (in_features, out_features) of the base model.
        base: name of the base model; an adapter that names another one is refused.

    Raises:
        AdapterError: not a plain LoRA folder, another base, wrong rank, missing or stray tensors.
    """
    config = _read_config(folder)
    _check_base(folder, config, base)
    invocation = _invocation(folder, config)
    return Adapter(name, _read_weights(folder, config, linears), invocation)


def _refuse(folder: Path, reason: str) -> AdapterError:
    return AdapterError(f"adapter {str(folder)!r} is refused: {reason}")


def _read_config(folder: Path) -> dict[str, Any]:
    path = folder / CONFIG_FILE
    if not path.is_file():
        raise _refuse(folder, f"there is no {CONFIG_FILE} in it")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise _refuse(folder, f"{CONFIG_FILE} is not JSON ({error})") from error
    except OSError as error:
        raise _refuse(folder, f"{CONFIG_FILE} cannot be read ({error})") from error
    if not isinstance(config, dict) or config.get("peft_type") != "LORA":
        raise _refuse(folder, "peft_type must be LORA")
    _check_plain(folder, config)
    _check_numbers(folder, config)
    return config


def _check_plain(folder: Path, config: Mapping[str, Any]) -> None:
    for key, what in _UNSUPPORTED.items():
        if config.get(key):
            raise _refuse(folder, f"{what} ({key}) cannot be gated and is not supported")
    if config.get("bias", "none") != "none":
        raise _refuse(folder, f"trained biases (bias={config['bias']!r}) are not supported")
    start = str(config.get("init_lora_weights", True)).casefold()
    if start.startswith(_REWRITE_THE_BASE):
        raise _refuse(
            folder,
            f"it was started with init_lora_weights={start!r}, which changes the base model too; "
            "convert it to a plain LoRA (PEFT: save_pretrained(..., "
            "path_initial_model_for_weight_conversion=...))",
        )


def _check_numbers(folder: Path, config: Mapping[str, Any]) -> None:
    ranks = {"r": config.get("r"), **_table(folder, config, "rank_pattern")}
    alphas = {
        "lora_alpha": config.get("lora_alpha", 8),
        **_table(folder, config, "alpha_pattern"),
    }
    for key, rank in ranks.items():
        if not isinstance(rank, int) or rank < 1:
            raise _refuse(folder, f"{key} must be a positive integer, not {rank!r}")
    for key, alpha in alphas.items():
        if not isinstance(alpha, int | float) or not math.isfinite(alpha):
            raise _refuse(folder, f"{key} must be a finite number, not {alpha!r}")


def _invocation(folder: Path, config: Mapping[str, Any]) -> tuple[int, ...]:
    tokens = config.get("alora_invocation_tokens")
    if tokens is None:
        return ()
    numbers = isinstance(tokens, list) and all(type(t) is int and t >= 0 for t in tokens)
    if not (tokens and numbers):
        reason = "must be a list of token numbers, at least one, or null"
        raise _refuse(folder, f"alora_invocation_tokens {reason}, not {tokens!r}")
    return tuple(tokens)


def _table(folder: Path, config: Mapping[str, Any], key: str) -> dict[str, Any]:
    table = config.get(key) or {}
    if not isinstance(table, dict):
        raise _refuse(folder, f"{key} must be an object, not {table!r}")
    return {f"{key}[{module!r}]": value for module, value in table.items()}


def _check_base(folder: Path, config: Mapping[str, Any], base: str) -> None:
    recorded = str(config.get("base_model_name_or_path") or "")
    # A path tells where somebody's base lies, not which it is; then only the shapes can tell.
    comparable = base and recorded and not (_is_place(recorded) or _is_place(base))
    if comparable and _stem(recorded) != _stem(base):
        raise _refuse(folder, f"it was trained over {recorded!r}, the base here is {base!r}")


def _is_place(name: str) -> bool:
    return name.startswith(("/", ".", "~")) or "\\" in name or name.endswith(".gguf")


def _stem(name: str) -> str:
    return name.rstrip("/").rsplit("/", 1)[-1].casefold()


def _read_weights(
    folder: Path, config: Mapping[str, Any], linears: Mapping[str, tuple[int, int]]
) -> dict[str, LoraWeight]:
    sides = _read_tensors(folder)
    weights: dict[str, LoraWeight] = {}
    for module in sorted({module for module, _ in sides}):
        if module not in linears:
            raise _refuse(folder, f"module {module!r} is no linear layer of this base model")
        pair = [sides.get((module, side)) for side in "AB"]
        if pair[0] is None or pair[1] is None:
            missing = "AB"[0 if pair[0] is None else 1]
            raise _refuse(folder, f"tensor lora_{missing} of {module!r} is missing")
        rank = int(_pattern(config.get("rank_pattern"), module, config["r"]))
        _check_shapes(folder, module, pair[0], pair[1], rank, linears[module])
        alpha = float(_pattern(config.get("alpha_pattern"), module, config.get("lora_alpha", 8)))
        scale = alpha / (rank**0.5 if config.get("use_rslora") else rank)
        weights[module] = LoraWeight(pair[0], pair[1], scale)
    if not weights:
        raise _refuse(folder, f"{WEIGHTS_FILE} holds no LoRA tensors")
    _check_finite(folder, weights)
    _check_complete(folder, config, weights, linears)
    return weights


def _read_tensors(folder: Path) -> dict[tuple[str, str], torch.Tensor]:
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        pickled = [p.name for p in folder.glob("*.bin")] + [p.name for p in folder.glob("*.pt")]
        reason = f"there is no {WEIGHTS_FILE} in it"
        if pickled:
            reason = (
                f"{pickled[0]} is a pickle, which can run code when read; save the adapter as "
                f"{WEIGHTS_FILE} (PEFT: save_pretrained(..., safe_serialization=True))"
            )
        raise _refuse(folder, reason)
    sides: dict[tuple[str, str], torch.Tensor] = {}
    try:
        # At once: fetching hundreds of small tensors one by one takes twice as long.
        tensors = load(path.read_bytes())
    except SafetensorError as error:
        raise _refuse(folder, f"{WEIGHTS_FILE} is damaged ({error})") from error
    except OSError as error:
        raise _refuse(folder, f"{WEIGHTS_FILE} cannot be read ({error})") from error
    for key, tensor in tensors.items():
        match = _KEY.match(key)
        if match is None:
            raise _refuse(folder, f"tensor {key!r} is not part of a plain LoRA")
        sides[match["module"], match["side"]] = tensor
    return sides


def _pattern(pattern: Mapping[str, float] | None, module: str, default: float) -> float:
    # PEFT matches a pattern's key against the end of the module path.
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default


def _check_shapes(
    folder: Path,
    module: str,
    a: torch.Tensor,
    b: torch.Tensor,
    rank: int,
    features: tuple[int, int],
) -> None:
    expected = ((rank, features[0]), (features[1], rank))
    found = (tuple(a.shape), tuple(b.shape))
    if found != expected:
        raise _refuse(
            folder,
            f"{module!r} has shapes A {found[0]} and B {found[1]}; this base and r={rank} need "
            f"A {expected[0]} and B {expected[1]}",
        )


def _check_finite(folder: Path, weights: Mapping[str, LoraWeight]) -> None:
    # A sum is finite only if all are, unless it overflows: a tenth of the time of looking at each.
    values = torch.cat([side.flatten() for pair in weights.values() for side in (pair.a, pair.b)])
    if not values.sum(dtype=torch.float32).isfinite():
        for module, pair in weights.items():
            if not (torch.isfinite(pair.a).all() and torch.isfinite(pair.b).all()):
                raise _refuse(folder, f"{module!r} holds values that are not finite")


def _check_complete(
    folder: Path,
    config: Mapping[str, Any],
    weights: Mapping[str, LoraWeight],
    linears: Mapping[str, tuple[int, int]],
) -> None:
    chosen, left_out = config.get("target_modules"), config.get("exclude_modules")
    if not config.get("layers_to_transform"):
        for module in linears.keys() - weights.keys():
            if _names(chosen, module) and not _names(left_out, module):
                raise _refuse(folder, f"tensors of target module {module!r} are missing")


def _names(chosen: object, module: str) -> bool:
    # As PEFT reads it: a text is a pattern of the whole path, a list holds ends of paths.
    if isinstance(chosen, str):
        found = re.fullmatch(chosen, module) is not None
    elif isinstance(chosen, list):
        found = any(module == end or module.endswith(f".{end}") for end in chosen)
    else:
        found = False
    return found
