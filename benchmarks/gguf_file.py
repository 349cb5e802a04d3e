"""The embedded model as a GGUF file for llama.cpp, written from the same weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from safetensors.numpy import load_file

KINDS = {
    "float32": gguf.GGMLQuantizationType.F32,
    "int8": gguf.GGMLQuantizationType.Q8_0,
    "q4_1": gguf.GGMLQuantizationType.Q4_1,
}
_FILE_TYPES = {
    "float32": gguf.LlamaFileType.ALL_F32,
    "int8": gguf.LlamaFileType.MOSTLY_Q8_0,
    "q4_1": gguf.LlamaFileType.MOSTLY_Q4_1,
}
_LAYER_NAMES = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}


def write_gguf(folder: Path, path: Path, kind: str) -> Path:
    """Write the Llama in `folder` as GGUF with all matrices of one kind of `KINDS`."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    writer = gguf.GGUFWriter(path, "llama")
    _describe(writer, config, kind)
    _spell(writer, folder, config)
    for name, tensor in load_file(folder / "model.safetensors").items():
        values = _permuted(name, tensor, config)
        if values.ndim == 1:
            writer.add_tensor(_name(name), values)
        else:
            packed = gguf.quants.quantize(values, KINDS[kind])
            writer.add_tensor(_name(name), packed, raw_dtype=KINDS[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _describe(writer: gguf.GGUFWriter, config: Mapping[str, Any], kind: str) -> None:
    writer.add_file_type(_FILE_TYPES[kind])
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])


def _spell(writer: gguf.GGUFWriter, folder: Path, config: Mapping[str, Any]) -> None:
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    model = tokenizer["model"]
    words = dict(model["vocab"])
    special = {token["id"] for token in tokenizer["added_tokens"] if token["special"]}
    words |= {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    names = sorted(words, key=lambda word: words[word])
    kinds = [
        gguf.TokenType.CONTROL if number in special else gguf.TokenType.NORMAL
        for number in range(len(names))
    ]
    merges = [m if isinstance(m, str) else " ".join(m) for m in model["merges"]]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(names)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(config["bos_token_id"])
    writer.add_eos_token_id(config["eos_token_id"])
    writer.add_pad_token_id(config["pad_token_id"])
    writer.add_add_bos_token(False)


def _permuted(name: str, tensor: np.ndarray, config: Mapping[str, Any]) -> np.ndarray:
    """llama.cpp turns neighbouring pairs of a head, transformers its halves."""
    heads = {
        "q_proj": config["num_attention_heads"],
        "k_proj": config["num_key_value_heads"],
    }.get(name.split(".")[-2])
    values = tensor.astype(np.float32)
    if heads is not None:
        rows, columns = values.shape
        halves = values.reshape(heads, 2, rows // heads // 2, columns)
        values = halves.swapaxes(1, 2).reshape(rows, columns)
    return np.ascontiguousarray(values)


def _name(name: str) -> str:
    outer = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in outer:
        found = outer[name]
    else:
        _, _, number, rest = name.split(".", 3)
        found = f"blk.{number}.{_LAYER_NAMES[rest.removesuffix('.weight')]}.weight"
    return found
