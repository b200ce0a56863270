"""State-space models, recurrent ones, and those that mix them with attention."""

from .specimen import DECODER, TEXT, Specimen, specimen, text


_MAMBA = {"mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16, "mamba_expand": 2}
_HEADS = {"mamba_n_heads": 8, "mamba_d_head": 16}
_EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
_DELTA = {
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
}
_ZAMBA = {"num_hidden_layers": 4, "attention_hidden_size": 128, "attention_head_dim": 32, "mamba_d_state": 8}
_ZAMBA |= {"num_key_value_heads": 4}


def _hybrid(name: str, **further) -> Specimen:
    return specimen(name, "hybrids", {**DECODER, **further}, text(16))


SPECIMENS = [
    _hybrid("BambaForCausalLM", **_MAMBA, **_HEADS, attn_layer_indices=[1]),
    _hybrid("FalconH1ForCausalLM", **_MAMBA, **_HEADS, mamba_d_ssm=128),
    _hybrid("FalconMambaForCausalLM", state_size=8, use_mambapy=False),
    _hybrid("GraniteMoeHybridForCausalLM", **_MAMBA, **_HEADS, **_EXPERTS, shared_intermediate_size=48,
            layer_types=["mamba", "attention"]),
    _hybrid("GraniteMoeHybridForCausalLM-dense", **_MAMBA, **_HEADS, num_local_experts=0, shared_intermediate_size=48,
            layer_types=["mamba", "attention"]),
    _hybrid("JambaForCausalLM", **_EXPERTS, num_hidden_layers=4, attn_layer_period=2, attn_layer_offset=1,
            expert_layer_period=2, expert_layer_offset=1, mamba_d_state=8),
    _hybrid("Lfm2ForCausalLM", layer_types=["conv", "full_attention"], block_multiple_of=16),
    _hybrid("Lfm2MoeForCausalLM", **_EXPERTS, layer_types=["conv", "full_attention"], num_dense_layers=1),
    _hybrid("MambaForCausalLM", state_size=8),
    _hybrid("Mamba2ForCausalLM", state_size=8, num_heads=8, head_dim=16, n_groups=1, chunk_size=16),
    _hybrid("NemotronHForCausalLM", layers_block_type=["mamba", "moe", "attention"], num_hidden_layers=3,
            ssm_state_size=8, mamba_num_heads=8, mamba_head_dim=16, n_groups=1, chunk_size=16, n_routed_experts=4,
            num_experts_per_tok=2, moe_intermediate_size=32, moe_shared_expert_intermediate_size=48),
    _hybrid("OlmoHybridForCausalLM", **_DELTA),
    _hybrid("Qwen3NextForCausalLM", **_DELTA, **_EXPERTS, shared_expert_intermediate_size=32),
    _hybrid("Qwen3_5ForCausalLM", **_DELTA),
    _hybrid("Qwen3_5MoeForCausalLM", **_DELTA, **_EXPERTS, shared_expert_intermediate_size=32),
    _hybrid("RecurrentGemmaForCausalLM", num_hidden_layers=3, lru_width=64, attention_window_size=8),
    _hybrid("RwkvForCausalLM", attention_hidden_size=64, context_length=64),
    _hybrid("xLSTMForCausalLM", num_heads=4, chunk_size=16, num_blocks=2, qk_dim_factor=1.0, return_last_states=False),
    specimen("ZambaForCausalLM", "hybrids", {**TEXT, **_ZAMBA, "n_mamba_heads": 2,
             "layers_block_type": ["mamba", "hybrid"] * 2}, text(16)),
    specimen("Zamba2ForCausalLM", "hybrids", {**TEXT, **_ZAMBA, "n_mamba_heads": 8, "mamba_headdim": 16,
             "mamba_ngroups": 1, "chunk_size": 16, "layers_block_type": ["mamba", "hybrid"] * 2}, text(16)),
    specimen("Zamba2ForCausalLM-adapters", "hybrids", {**TEXT, **_ZAMBA, "n_mamba_heads": 8, "mamba_headdim": 16,
             "mamba_ngroups": 1, "chunk_size": 16, "layers_block_type": ["mamba", "hybrid"] * 2,
             "use_shared_attention_adapter": True, "adapter_rank": 8, "num_mem_blocks": 2}, text(16)),
]  # fmt: skip
