"""Tiny mixtures of experts, one for each way in which transformers stores them."""

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import PreTrainedModel


SIZES = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 64}
FOUR = {"num_local_experts": 4, "num_experts_per_tok": 2}


def _mixtral() -> Any:
    return transformers.MixtralForCausalLM(transformers.MixtralConfig(**SIZES, **HEADS, **FOUR))


def _qwen3_moe() -> Any:
    more = {"moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2}
    return transformers.Qwen3MoeForCausalLM(transformers.Qwen3MoeConfig(**SIZES, **HEADS, **more))


def _gpt_oss() -> Any:
    return transformers.GptOssForCausalLM(transformers.GptOssConfig(**SIZES, **HEADS, **FOUR, pad_token_id=0))


def _llama4() -> Any:
    more = {"intermediate_size_mlp": 48, "interleave_moe_layer_step": 1, "num_experts_per_tok": 1}
    return transformers.Llama4ForCausalLM(
        transformers.Llama4TextConfig(**SIZES, **HEADS, **{**FOUR, **more}, attention_chunk_size=16, pad_token_id=0)
    )


def _jetmoe() -> Any:
    return transformers.JetMoeForCausalLM(
        transformers.JetMoeConfig(
            vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_key_value_heads=2,
            kv_channels=16, num_local_experts=4, num_experts_per_tok=2, max_position_embeddings=64,
        )
    )  # fmt: skip


def _dbrx() -> Any:
    return transformers.DbrxForCausalLM(
        transformers.DbrxConfig(
            d_model=32, n_heads=2, n_layers=2, max_seq_len=64, vocab_size=64,
            attn_config={"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
            ffn_config={"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
        )
    )  # fmt: skip


def _deepseek_v3() -> Any:
    return transformers.DeepseekV3ForCausalLM(
        transformers.DeepseekV3Config(
            vocab_size=64, hidden_size=32, intermediate_size=48, moe_intermediate_size=32, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=2, n_routed_experts=4, num_experts_per_tok=2, n_group=2,
            topk_group=2, first_k_dense_replace=1, kv_lora_rank=16, q_lora_rank=16, qk_rope_head_dim=8,
            qk_nope_head_dim=8, v_head_dim=16, max_position_embeddings=64,
        )
    )  # fmt: skip


def _switch() -> Any:
    return transformers.SwitchTransformersForConditionalGeneration(
        transformers.SwitchTransformersConfig(
            vocab_size=64, d_model=32, d_kv=16, d_ff=48, num_layers=2, num_sparse_encoder_layers=1,
            num_decoder_layers=2, num_sparse_decoder_layers=1, num_heads=2, num_experts=4, expert_capacity=8,
            decoder_start_token_id=0,
        )
    )  # fmt: skip


def _nllb() -> Any:
    return transformers.NllbMoeForConditionalGeneration(
        transformers.NllbMoeConfig(
            vocab_size=64, d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=2,
            decoder_attention_heads=2, encoder_ffn_dim=48, decoder_ffn_dim=48, encoder_sparse_step=2,
            decoder_sparse_step=2, num_experts=4, expert_capacity=16, max_position_embeddings=64,
            decoder_start_token_id=2,
        )
    )  # fmt: skip


def _nemotron_h() -> Any:
    return transformers.NemotronHForCausalLM(
        transformers.NemotronHConfig(
            vocab_size=64, hidden_size=32, intermediate_size=32, num_hidden_layers=2,
            layers_block_type=["attention", "moe"],
            num_attention_heads=2, num_key_value_heads=2, head_dim=16, n_routed_experts=4, num_experts_per_tok=2,
            moe_intermediate_size=32, moe_shared_expert_intermediate_size=32, n_group=1, topk_group=1,
            mamba_num_heads=4, mamba_head_dim=16, ssm_state_size=8, n_groups=1, chunk_size=16,
            max_position_embeddings=64,
        )
    )  # fmt: skip


MIXTURES: dict[str, Callable[[], Any]] = {
    "mixtral": _mixtral,
    "qwen3_moe": _qwen3_moe,
    "gpt_oss": _gpt_oss,
    "llama4": _llama4,
    "jetmoe": _jetmoe,
    "dbrx": _dbrx,
    "deepseek_v3": _deepseek_v3,
    "switch": _switch,
    "nllb_moe": _nllb,
    "nemotron_h": _nemotron_h,
}


def mixture(name: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A tiny mixture, the same at every call; weights and biases of some size."""
    torch.manual_seed(0)
    model = MIXTURES[name]()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(0.2 * torch.randn_like(parameter))
    if dtype == torch.float64:  # for which torch has no grouped product
        model.config._experts_implementation = "eager"
    return model.to(dtype).eval()


def mixture_data(name: str, count: int = 8, length: int = 12) -> list[dict[str, Tensor]]:
    """Examples that reach every stack of it."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(3, 64, (count, length), generator=generator)
    if name not in ("switch", "nllb_moe"):
        return [{"input_ids": row[None]} for row in ids]
    answers = torch.randint(3, 64, (count, length - 4), generator=generator)
    return [
        {"input_ids": row[None], "decoder_input_ids": answer[None]} for row, answer in zip(ids, answers, strict=True)
    ]
