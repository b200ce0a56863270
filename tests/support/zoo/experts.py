"""Decoders with experts."""

from .specimen import DECODER, VOCABULARY, Specimen, specimen, text


#: Under all the names that configurations have for them; one that does not know a name keeps it as an attribute.
_MIXTURE = {
    **DECODER,
    "moe_intermediate_size": 32,
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
}
#: Keys and values through a narrow latent; one dense block, then one with experts.
_LATENT = {
    "num_key_value_heads": 4,
    "head_dim": 8,
    "kv_lora_rank": 16,
    "q_lora_rank": 24,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 16,
    "n_group": 2,
    "topk_group": 1,
    "n_shared_experts": 1,
    "first_k_dense_replace": 1,
}


def _mixture(name: str, **further) -> Specimen:
    return specimen(name, "experts", {**_MIXTURE, **further}, text(24))


_PLAIN = (
    "AfmoeForCausalLM", "Cohere2MoeForCausalLM", "Ernie4_5_MoeForCausalLM", "FlexOlmoForCausalLM",
    "GptOssForCausalLM", "GraniteMoeForCausalLM", "HunYuanMoEV1ForCausalLM", "JetMoeForCausalLM",
    "MiniMaxM2ForCausalLM", "MixtralForCausalLM", "OlmoeForCausalLM", "PhimoeForCausalLM", "SolarOpenForCausalLM",
)  # fmt: skip

SPECIMENS = [
    *(_mixture(name) for name in _PLAIN),
    specimen(
        "DbrxForCausalLM", "experts",
        {
            "vocab_size": VOCABULARY, "d_model": 64, "n_heads": 4, "n_layers": 2, "max_seq_len": 64,
            "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0},
            "attn_config": {"kv_n_heads": 2, "clip_qkv": 8.0, "rope_theta": 10000.0},
            "ffn_config": {"ffn_hidden_size": 32, "moe_num_experts": 4, "moe_top_k": 2},
        },
        text(24),
    ),
    _mixture("DeepseekV2ForCausalLM", **_LATENT, topk_method="group_limited_greedy"),
    _mixture("DeepseekV2ForCausalLM-lite", **_LATENT | {"q_lora_rank": None}),
    _mixture("DeepseekV3ForCausalLM", **_LATENT),
    _mixture("Dots1ForCausalLM", n_shared_experts=1, first_k_dense_replace=1, n_group=2),
    _mixture("Ernie4_5_MoeForCausalLM-dense-first", moe_num_experts=4, moe_k=2, moe_layer_start_index=1),
    _mixture("Glm4MoeForCausalLM", n_shared_experts=1, first_k_dense_replace=1, n_group=2),
    _mixture("Glm4MoeLiteForCausalLM", **_LATENT),
    _mixture("GraniteMoeSharedForCausalLM", shared_intermediate_size=48),
    _mixture("InklingForCausalLM", n_shared_experts=2, swa_num_attention_heads=4, swa_num_key_value_heads=2,
             swa_head_dim=16, head_dim=16, d_rel=4, rel_extent=16, num_experts_per_tok=1, n_routed_experts=4),
    _mixture("Step3p7TextModel", share_expert_dim=32, mlp_layer_types=["dense", "sparse"], head_dim=16,
             swiglu_limits=[None, 7.0], num_sliding_attention_heads=4, sliding_window=16),
    _mixture("Llama4ForCausalLM", intermediate_size_mlp=96, interleave_moe_layer_step=2),
    _mixture("LongcatFlashForCausalLM", **_LATENT, num_layers=1, ffn_hidden_size=96, expert_ffn_hidden_size=32,
             zero_expert_num=2, moe_topk=2),
    _mixture("MiniMaxForCausalLM", layer_types=["linear_attention", "full_attention"], block_size=8),
    _mixture("Qwen2MoeForCausalLM", shared_expert_intermediate_size=48),
    _mixture("Qwen3MoeForCausalLM"),
    _mixture("Qwen3MoeForCausalLM-dense-first", mlp_only_layers=[0]),
    _mixture("Gemma4ForCausalLM-experts", enable_moe_block=True, top_k_experts=2, hidden_size_per_layer_input=0,
             vocab_size_per_layer_input=VOCABULARY, layer_types=["sliding_attention", "full_attention"],
             global_head_dim=16),
]  # fmt: skip
