"""GGUF files of a tiny Llama, as llama.cpp's converter would write them."""

from pathlib import Path

import gguf
import numpy as np
import torch
from transformers import LlamaConfig, LlamaForCausalLM


TOKENS = ["<s>", "</s>", "<unk>", *"abcdefghijklmnopqrstuvwxyz", "Ġ", *"0123456789", *".,:;!?-'", "th"]
VOCABULARY = len(TOKENS)
TEMPLATE = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
HEADS, KEY_VALUE_HEADS = 4, 2
Quantization = gguf.GGMLQuantizationType

_OF_BLOCKS = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_OTHERS = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def tiny_llama(tied: bool = False) -> LlamaForCausalLM:
    """A random model whose matrices can be stored in blocks of 32."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 64}
    heads = {"num_attention_heads": HEADS, "num_key_value_heads": KEY_VALUE_HEADS}
    config = LlamaConfig(vocab_size=VOCABULARY, **sizes, **heads, rms_norm_eps=1e-5, tie_word_embeddings=tied)
    return LlamaForCausalLM(config).eval()


def write_gguf(
    path: Path,
    model: LlamaForCausalLM,
    quantization: Quantization = Quantization.F32,
    tokenizer: bool = True,
    merge: str = "t h",
    architecture: str = "llama",
    extra: dict[str, int] | None = None,
) -> dict[str, torch.Tensor]:
    """Write a model.

    Args:
        path: file to write.
        model: what :func:`tiny_llama` gives.
        quantization: of the matrices.
        tokenizer: write one.
        merge: its only merge.
        architecture: name that is written.
        extra: further metadata, 16-bit numbers.

    Returns:
        What the file holds, dequantized, by the model's names.
    """
    config = model.config
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_VALUE_HEADS)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.hidden_size // HEADS)
    writer.add_vocab_size(VOCABULARY)
    for name, value in (extra or {}).items():
        writer.add_uint16(name, value)
    if tokenizer:
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(TOKENS)
        writer.add_token_types([3, 3, 3] + [1] * (VOCABULARY - 3))
        writer.add_token_merges([merge])
        writer.add_bos_token_id(0)
        writer.add_eos_token_id(1)
        writer.add_unk_token_id(2)
        writer.add_chat_template(TEMPLATE)
    held = {}
    for name, parameter in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        stored = _to_llama_cpp(name, parameter.numpy())
        kind = quantization if stored.ndim == 2 else Quantization.F32
        packed = gguf.quantize(stored, kind)
        writer.add_tensor(_file_name(name), packed, raw_dtype=kind)
        held[name] = torch.from_numpy(_from_llama_cpp(name, gguf.dequantize(packed, kind)).copy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return held


def _file_name(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in _OTHERS:
        return f"{_OTHERS[stem]}.weight"
    _, _, block, part = stem.split(".", 3)
    return f"blk.{block}.{_OF_BLOCKS[part]}.weight"


def _heads(name: str) -> int | None:
    return HEADS if "q_proj" in name else KEY_VALUE_HEADS if "k_proj" in name else None


def _to_llama_cpp(name: str, weight: np.ndarray) -> np.ndarray:
    """Rotary pairs lie beside each other there, and half a head apart here."""
    if (heads := _heads(name)) is None:
        return np.ascontiguousarray(weight)
    apart = weight.reshape(heads, 2, -1, weight.shape[1])
    return np.ascontiguousarray(apart.swapaxes(1, 2).reshape(weight.shape))


def _from_llama_cpp(name: str, weight: np.ndarray) -> np.ndarray:
    if (heads := _heads(name)) is None:
        return weight
    return weight.reshape(heads, -1, 2, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)
