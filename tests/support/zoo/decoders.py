"""Dense decoders."""

from .specimen import DECODER, GROUPED, TEXT, VOCABULARY, Specimen, specimen, text


def _decoder(name: str, options: dict | None = None, **further) -> Specimen:
    return specimen(name, "decoders", {**(DECODER if options is None else options), **further}, text())


_GPT2 = {"vocab_size": VOCABULARY, "n_positions": 64, "n_embd": 64, "n_layer": 2, "n_head": 4}
_GPT2 |= {"bos_token_id": 1, "eos_token_id": 2}
_OPT = {**TEXT, "max_position_embeddings": 32, "ffn_dim": 96}
_PER_LAYER = {"vocab_size_per_layer_input": VOCABULARY, "hidden_size_per_layer_input": 8}
_SLIDING = ["sliding_attention", "full_attention"]

#: Those that the options of most decoders suit.
_PLAIN = (
    "ApertusForCausalLM", "ArceeForCausalLM", "BitNetForCausalLM", "CohereForCausalLM", "Cohere2ForCausalLM",
    "CwmForCausalLM", "DiffLlamaForCausalLM", "DogeForCausalLM", "Emu3ForCausalLM", "Ernie4_5ForCausalLM",
    "Exaone4ForCausalLM", "Gemma2ForCausalLM", "GemmaForCausalLM", "GlmForCausalLM", "Glm4ForCausalLM",
    "GraniteForCausalLM", "HeliumForCausalLM", "HunYuanDenseV1ForCausalLM", "LlamaForCausalLM",
    "MinistralForCausalLM", "Ministral3ForCausalLM", "MistralForCausalLM", "ModernBertDecoderForCausalLM",
    "NanoChatForCausalLM", "NemotronForCausalLM", "OlmoForCausalLM", "Olmo2ForCausalLM", "Olmo3ForCausalLM",
    "PersimmonForCausalLM", "PhiForCausalLM", "Phi3ForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM",
    "SeedOssForCausalLM", "SmolLM3ForCausalLM", "StableLmForCausalLM", "Starcoder2ForCausalLM",
    "VaultGemmaForCausalLM",
)  # fmt: skip

SPECIMENS = [
    *(_decoder(name) for name in _PLAIN),
    _decoder("BertLMHeadModel", TEXT, is_decoder=True),
    _decoder("BioGptForCausalLM", TEXT),
    _decoder("BloomForCausalLM", {"vocab_size": VOCABULARY, "hidden_size": 64, "n_layer": 2, "n_head": 4}),
    _decoder("CodeGenForCausalLM", _GPT2, rotary_dim=8),
    _decoder("CTRLLMHeadModel", _GPT2, dff=96),
    _decoder("FalconForCausalLM-grouped", GROUPED, new_decoder_architecture=True, num_kv_heads=2),
    _decoder("FalconForCausalLM-multi-query", TEXT),
    _decoder("FalconForCausalLM-alibi", TEXT, alibi=True, multi_query=False, parallel_attn=False, bias=True),
    _decoder("Gemma3ForCausalLM", layer_types=_SLIDING, sliding_window=8),
    _decoder(
        "Gemma3nForCausalLM", **_PER_LAYER, num_hidden_layers=4, layer_types=_SLIDING * 2, sliding_window=8,
        num_kv_shared_layers=2, laurel_rank=8, altup_num_inputs=2, activation_sparsity_pattern=[0.5, 0.0, 0.0, 0.0],
    ),
    _decoder(
        "Gemma4ForCausalLM", **_PER_LAYER, num_hidden_layers=4, layer_types=_SLIDING * 2, sliding_window=8,
        num_kv_shared_layers=2, global_head_dim=32,
    ),
    _decoder(
        "Gemma4ForCausalLM-wide", **_PER_LAYER, num_hidden_layers=4, layer_types=_SLIDING * 2, sliding_window=8,
        num_kv_shared_layers=2, global_head_dim=16, use_double_wide_mlp=True,
    ),
    _decoder("GPT2LMHeadModel", _GPT2),
    _decoder("GPT2ForSequenceClassification", _GPT2, pad_token_id=0, num_labels=3),
    _decoder("GPTBigCodeForCausalLM", _GPT2),
    _decoder("GPTBigCodeForCausalLM-multi-head", _GPT2, multi_query=False),
    _decoder("GPTJForCausalLM", _GPT2, rotary_dim=8),
    _decoder(
        "GPTNeoForCausalLM", TEXT, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]], window_size=8
    ),
    _decoder("GPTNeoXForCausalLM", TEXT),
    _decoder("GPTNeoXForCausalLM-sequential", TEXT, use_parallel_residual=False),
    _decoder("GPTNeoXJapaneseForCausalLM", TEXT),
    _decoder("LlamaForCausalLM-tied-biased", tie_word_embeddings=True, attention_bias=True, mlp_bias=True),
    _decoder("LlamaForSequenceClassification", num_labels=3),
    _decoder("LlamaModel"),
    _decoder("MptForCausalLM", {"vocab_size": VOCABULARY, "d_model": 64, "n_heads": 4, "n_layers": 2}, max_seq_len=64),
    _decoder("OpenAIGPTLMHeadModel", _GPT2),
    _decoder("OPTForCausalLM", _OPT),
    _decoder("OPTForCausalLM-post-norm", _OPT, do_layer_norm_before=False, word_embed_proj_dim=32),
    _decoder("PhiForCausalLM-normed", qk_layernorm=True),
    _decoder("StableLmForCausalLM-parallel", use_parallel_residual=True, qk_layernorm=True),
    _decoder(
        "XGLMForCausalLM", {"vocab_size": VOCABULARY, "d_model": 64, "ffn_dim": 96, "num_layers": 2},
        attention_heads=4, max_position_embeddings=32,
    ),
]  # fmt: skip
