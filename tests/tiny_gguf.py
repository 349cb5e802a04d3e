"""A GGUF file of a random Llama, written as llama.cpp writes it: permuted heads, byte-level BPE."""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np
import numpy.typing as npt
from transformers.convert_slow_tokenizer import bytes_to_unicode

Weights = dict[str, npt.NDArray[np.float32]]
HIDDEN, INNER, HEADS, KV_HEADS = 32, 64, 4, 2
MERGES = ("h e", "l l", "he ll", "hell o", "Ġ w", "o r")
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TOKENS = (*SPECIAL, *sorted(bytes_to_unicode().values()), *(m.replace(" ", "") for m in MERGES))
# llama.cpp's name → the name in transformers, with the shape.
_LAYER = {
    "attn_q": ("self_attn.q_proj", (HIDDEN, HIDDEN)),
    "attn_k": ("self_attn.k_proj", (HIDDEN * KV_HEADS // HEADS, HIDDEN)),
    "attn_v": ("self_attn.v_proj", (HIDDEN * KV_HEADS // HEADS, HIDDEN)),
    "attn_output": ("self_attn.o_proj", (HIDDEN, HIDDEN)),
    "ffn_gate": ("mlp.gate_proj", (INNER, HIDDEN)),
    "ffn_up": ("mlp.up_proj", (INNER, HIDDEN)),
    "ffn_down": ("mlp.down_proj", (HIDDEN, INNER)),
    "attn_norm": ("input_layernorm", (HIDDEN,)),
    "ffn_norm": ("post_attention_layernorm", (HIDDEN,)),
}


def write_gguf(path: Path, seed: int = 0) -> Weights:
    """Returns the weights under the names and in the order that transformers has."""
    rng = np.random.default_rng(seed)
    writer = gguf.GGUFWriter(path, "llama")
    _write_fields(writer)
    weights: Weights = {}

    def put(name: str, target: str, shape: tuple[int, ...]) -> None:
        value = rng.normal(0, 0.2, shape).astype(np.float32)
        weights[target] = value
        heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(name.split(".")[-2])
        writer.add_tensor(name, value if heads is None else _permuted(value, heads))

    put("token_embd.weight", "model.embed_tokens.weight", (len(TOKENS), HIDDEN))
    for short, (target, shape) in _LAYER.items():
        put(f"blk.0.{short}.weight", f"model.layers.0.{target}.weight", shape)
    put("output_norm.weight", "model.norm.weight", (HIDDEN,))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return weights


def _write_fields(writer: gguf.GGUFWriter) -> None:
    writer.add_name("tiny")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_rope_freq_base(10_000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(len(TOKENS))
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(list(TOKENS))
    kinds = [gguf.TokenType.CONTROL if t in SPECIAL else gguf.TokenType.NORMAL for t in TOKENS]
    writer.add_token_types(kinds)
    writer.add_token_merges(list(MERGES))
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.add_pad_token_id(2)


def _permuted(weight: npt.NDArray[np.float32], heads: int) -> npt.NDArray[np.float32]:
    # llama.cpp's rotary embedding pairs neighbours, that of transformers pairs halves.
    halves = weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)
