"""Tiny random models of the families whose pairs are declared, one or more for each page, by variant."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers as hf
from support.mixtures import MIXTURES
from support.models import DECLARED as WHOLE
from torch import Tensor
from transformers import PreTrainedModel

from optimum_si.models.experts.unfused import experts_as_linears
from optimum_si.models.forward.modes import without_cache
from optimum_si.models.forward.stops import Stop
from optimum_si.models.structure import Block, find_structure


_BASE = {
    "vocab_size": 48,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 40,
}
_PLAIN = {**_BASE, "intermediate_size": 48}
_GROUPED = {**_PLAIN, "num_key_value_heads": 2}
_HEADS = {**_GROUPED, "head_dim": 8}
_GPT = {"vocab_size": 48, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 40}
_FALCON = {"vocab_size": 48, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
_IMAGE = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
}
_DINO = {name: value for name, value in _IMAGE.items() if name != "intermediate_size"}
_T5 = {"vocab_size": 48, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
_BOTH = {
    "vocab_size": 48,
    "d_model": 32,
    **{f"{side}_{name}": value for side in ("encoder", "decoder") for name, value in
       {"layers": 2, "attention_heads": 4, "ffn_dim": 48}.items()},
    "max_position_embeddings": 40,
}  # fmt: skip
_SPEECH = {"num_mel_bins": 8, "max_source_positions": 10, "max_target_positions": 40}
_WITHOUT_POSITIONS = {name: value for name, value in _BOTH.items() if name != "max_position_embeddings"}
_MOE = {"moe_intermediate_size": 16, "num_experts": 4, "num_experts_per_tok": 2}
_SHARED = {**_MOE, "shared_expert_intermediate_size": 24}
_DELTA = {
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "layer_types": ["linear_attention", "full_attention"],
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "depth": 2,
    "num_heads": 4,
    "patch_size": 4,
    "temporal_patch_size": 2,
    "spatial_merge_size": 2,
    "out_hidden_size": 32,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0],
}
_ROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
_QWEN_VL = {"image_token_id": 3, "vision_start_token_id": 4, "vision_end_token_id": 5, "video_token_id": 6}
_VL = {
    "text_config": {**_GROUPED, "rope_parameters": _ROPE},
    "vision_config": {**_VISION, "embed_dim": 32, "mlp_ratio": 2, "window_size": 8, "fullatt_block_indexes": [1]},
}
_LATENT = {
    **_PLAIN,
    "num_key_value_heads": 4,
    "kv_lora_rank": 16,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_shared_experts": 1,
    "moe_intermediate_size": 16,
    "first_k_dense_replace": 1,
}
_LONG = {**_T5, "local_radius": 4, "global_block_size": 4, "decoder_start_token_id": 0}
_ELEMENT = {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 48, "num_kv_shared_layers": 1}
_FOUR = {**_HEADS, "num_hidden_layers": 4, **_ELEMENT}
_DEBERTA = {**_PLAIN, "relative_attention": True, "pos_att_type": ["p2c", "c2p"]}


def _made(name: str, config: str, **fields: Any) -> Callable[[], Any]:
    return lambda: getattr(hf, name)(getattr(hf, config)(**fields))


#: Every declared type, in each variant that its page asks for; beginning with those whose pages say more than pairs.
DECODERS: dict[str, Callable[[], Any]] = {
    **{name: made for name, made in WHOLE.items() if not name.startswith("bert")},
    "gpt2-pairs": _made("GPT2LMHeadModel", "GPT2Config", **_GPT),
    "gpt2-cross": _made("GPT2LMHeadModel", "GPT2Config", **_GPT, add_cross_attention=True),
    "gpt-neox-pairs": _made("GPTNeoXForCausalLM", "GPTNeoXConfig", **_PLAIN),
    "gpt-neox-in-turn": _made("GPTNeoXForCausalLM", "GPTNeoXConfig", **_PLAIN, use_parallel_residual=False),
    "bloom": _made("BloomForCausalLM", "BloomConfig", vocab_size=48, hidden_size=32, n_layer=2, n_head=4),
    "falcon": _made("FalconForCausalLM", "FalconConfig", **_FALCON, bias=True),
    "falcon-alibi": _made(
        "FalconForCausalLM", "FalconConfig", **_FALCON, multi_query=False, alibi=True, parallel_attn=False
    ),
    "falcon-new": _made(
        "FalconForCausalLM", "FalconConfig", **_FALCON, num_kv_heads=2, new_decoder_architecture=True
    ),
    "mpt": _made("MptForCausalLM", "MptConfig", vocab_size=48, d_model=32, n_heads=4, n_layers=2, max_seq_len=40),
    "codegen": _made("CodeGenForCausalLM", "CodeGenConfig", **_GPT, rotary_dim=4, n_ctx=40),
    "gptj": _made("GPTJForCausalLM", "GPTJConfig", **_GPT, rotary_dim=4),
    "gpt-bigcode": _made("GPTBigCodeForCausalLM", "GPTBigCodeConfig", **_GPT),
    "gpt-bigcode-heads": _made("GPTBigCodeForCausalLM", "GPTBigCodeConfig", **_GPT, multi_query=False),
    "phi": _made("PhiForCausalLM", "PhiConfig", **_PLAIN, partial_rotary_factor=0.5),
    "phi3": _made("Phi3ForCausalLM", "Phi3Config", **_GROUPED, pad_token_id=0),
    "glm": _made("GlmForCausalLM", "GlmConfig", **_HEADS, pad_token_id=0),
    "glm4": _made("Glm4ForCausalLM", "Glm4Config", **_HEADS, pad_token_id=0),
    "gemma": _made("GemmaForCausalLM", "GemmaConfig", **_HEADS),
    "gemma2": _made("Gemma2ForCausalLM", "Gemma2Config", **_HEADS),
    "gemma3": _made("Gemma3ForCausalLM", "Gemma3TextConfig", **_HEADS),
    "gemma3n": _made(
        "Gemma3nForCausalLM", "Gemma3nTextConfig", **_FOUR, layer_types=["full_attention"] * 4, laurel_rank=4,
        activation_sparsity_pattern=[0.0] * 4,
    ),
    "gemma4": _made(
        "Gemma4ForCausalLM", "Gemma4TextConfig", **_FOUR, global_head_dim=8,
        layer_types=["sliding_attention", "full_attention"] * 2,
    ),
    "olmo2": _made("Olmo2ForCausalLM", "Olmo2Config", **_GROUPED),
    "olmo3": _made("Olmo3ForCausalLM", "Olmo3Config", **_GROUPED),
    "granite": _made(
        "GraniteForCausalLM", "GraniteConfig", **_GROUPED, attention_multiplier=0.3, residual_multiplier=0.5
    ),
    "smollm3": _made("SmolLM3ForCausalLM", "SmolLM3Config", **_GROUPED, no_rope_layers=[1, 0], pad_token_id=0),
    "stablelm": _made("StableLmForCausalLM", "StableLmConfig", **_GROUPED, partial_rotary_factor=0.5),
    "stablelm-parallel": _made(
        "StableLmForCausalLM", "StableLmConfig", **_GROUPED, use_parallel_residual=True, qk_layernorm=True
    ),
    "starcoder2": _made("Starcoder2ForCausalLM", "Starcoder2Config", **_GROUPED),
    "cohere": _made("CohereForCausalLM", "CohereConfig", **_GROUPED, pad_token_id=0),
    "cohere2": _made("Cohere2ForCausalLM", "Cohere2Config", **_GROUPED, pad_token_id=0),
    "deepseek-v2": _made("DeepseekV2ForCausalLM", "DeepseekV2Config", **_LATENT, q_lora_rank=16),
    "deepseek-v2-lite": _made("DeepseekV2ForCausalLM", "DeepseekV2Config", **_LATENT, q_lora_rank=None),
    "qwen2-moe": _made("Qwen2MoeForCausalLM", "Qwen2MoeConfig", **_GROUPED, **_SHARED),
    "qwen3-next": _made("Qwen3NextForCausalLM", "Qwen3NextConfig", **_HEADS, **_SHARED, **_DELTA),
    **{name: MIXTURES[name] for name in ("mixtral", "qwen3_moe", "gpt_oss", "llama4", "deepseek_v3")},
}  # fmt: skip
OTHERS: dict[str, Callable[[], Any]] = {
    **{name: made for name, made in WHOLE.items() if name.startswith("bert")},
    "roberta": _made("RobertaForMaskedLM", "RobertaConfig", **_PLAIN, pad_token_id=0),
    "roberta-cross": _made(
        "RobertaForCausalLM", "RobertaConfig", **_PLAIN, pad_token_id=0, is_decoder=True, add_cross_attention=True
    ),
    "xlm-roberta": _made("XLMRobertaForMaskedLM", "XLMRobertaConfig", **_PLAIN, pad_token_id=0),
    "camembert": _made("CamembertForMaskedLM", "CamembertConfig", **_PLAIN, pad_token_id=0),
    "electra": _made("ElectraForMaskedLM", "ElectraConfig", **_PLAIN, embedding_size=16),
    "distilbert": _made(
        "DistilBertForMaskedLM", "DistilBertConfig", vocab_size=48, dim=32, n_layers=2, n_heads=4, hidden_dim=48,
        max_position_embeddings=40,
    ),
    "modernbert": _made(
        "ModernBertForMaskedLM", "ModernBertConfig", **_PLAIN, pad_token_id=0, cls_token_id=1, sep_token_id=2
    ),
    "deberta-v2": _made("DebertaV2ForMaskedLM", "DebertaV2Config", **_DEBERTA),
    "deberta-v3": _made(
        "DebertaV2ForMaskedLM", "DebertaV2Config", **_DEBERTA, share_att_key=True, position_buckets=8,
        norm_rel_ebd="layer_norm", position_biased_input=False,
    ),
    "vit-pairs": _made("ViTForImageClassification", "ViTConfig", **_IMAGE),
    "dinov2": _made("Dinov2ForImageClassification", "Dinov2Config", **_DINO),
    "dinov2-gated": _made("Dinov2ForImageClassification", "Dinov2Config", **_DINO, use_swiglu_ffn=True),
    "clip": _made(
        "CLIPModel", "CLIPConfig", text_config={**_PLAIN, "eos_token_id": 1}, vision_config=_IMAGE, projection_dim=16
    ),
    "siglip": _made("SiglipModel", "SiglipConfig", text_config=_PLAIN, vision_config=_IMAGE),
    "t5-pairs": _made("T5ForConditionalGeneration", "T5Config", **_T5, decoder_start_token_id=0),
    "t5-gated": _made("T5ForConditionalGeneration", "T5Config", **_T5, feed_forward_proj="gated-gelu"),
    "mt5": _made("MT5ForConditionalGeneration", "MT5Config", **_T5, decoder_start_token_id=0),
    "umt5": _made("UMT5ForConditionalGeneration", "UMT5Config", **_T5, decoder_start_token_id=0),
    "longt5": _made("LongT5ForConditionalGeneration", "LongT5Config", **_LONG),
    "longt5-global": _made(
        "LongT5ForConditionalGeneration", "LongT5Config", **_LONG, encoder_attention_type="transient-global"
    ),
    "bart": _made("BartForConditionalGeneration", "BartConfig", **_BOTH),
    "marian": _made(
        "MarianMTModel", "MarianConfig", **_BOTH, pad_token_id=0, decoder_start_token_id=0,
        activation_function="relu",
    ),
    "mbart": _made("MBartForConditionalGeneration", "MBartConfig", **_BOTH),
    "pegasus": _made("PegasusForConditionalGeneration", "PegasusConfig", **_BOTH),
    "m2m-100": _made("M2M100ForConditionalGeneration", "M2M100Config", **_BOTH),
    "blenderbot": _made("BlenderbotForConditionalGeneration", "BlenderbotConfig", **_BOTH),
    "whisper": _made(
        "WhisperForConditionalGeneration", "WhisperConfig", **_WITHOUT_POSITIONS, **_SPEECH, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    ),
    "llava": lambda: hf.LlavaForConditionalGeneration(
        hf.LlavaConfig(
            text_config=hf.LlamaConfig(**_HEADS), vision_config=hf.CLIPVisionConfig(**_IMAGE), image_token_index=3,
            vision_feature_layer=-1,
        )
    ),
    "qwen2-vl": _made("Qwen2VLForConditionalGeneration", "Qwen2VLConfig", **_VL, **_QWEN_VL),
    "qwen2-5-vl": _made("Qwen2_5_VLForConditionalGeneration", "Qwen2_5_VLConfig", **_VL, **_QWEN_VL),
    "qwen3-vl": _made(
        "Qwen3VLForConditionalGeneration", "Qwen3VLConfig", text_config={**_HEADS, "rope_parameters": _ROPE},
        vision_config=_VISION, **_QWEN_VL,
    ),
}  # fmt: skip
#: No page is for these.
FOUND: dict[str, Callable[[], Any]] = {
    "gpt-neo-pairs": _made(
        "GPTNeoForCausalLM", "GPTNeoConfig", vocab_size=48, hidden_size=32, num_layers=2, num_heads=4,
        attention_types=[[["global", "local"], 1]], max_position_embeddings=40,
    ),
    **{name: MIXTURES[name] for name in ("switch", "nllb_moe", "nemotron_h", "dbrx")},
}  # fmt: skip
MADE = {**DECODERS, **OTHERS, **FOUND}


def family_model(name: str, dtype: torch.dtype = torch.float32) -> PreTrainedModel:
    """A model by its name, the same at every call, with norms and biases away from 1 and 0."""
    torch.manual_seed(0)
    model: PreTrainedModel = MADE[name]().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn_like(parameter)
            parameter.add_(0.3 * noise) if parameter.ndim == 1 else parameter.copy_(0.25 * noise)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    if dtype == torch.float64:  # for which torch has no grouped product
        model.config._experts_implementation = "eager"
    return model


def family_inputs(name: str, model: PreTrainedModel) -> dict[str, Tensor]:
    """A batch that reaches every stack of it."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(7, 48, (3, 9), generator=generator)
    images = torch.randn(3, 3, 16, 16, generator=generator)
    if name == "llava":
        picture = torch.full((3, 16), 3)
        return {"input_ids": torch.cat([ids[:, :2], picture, ids[:, 2:]], dim=1), "pixel_values": images}
    if name in ("qwen2-vl", "qwen2-5-vl", "qwen3-vl"):
        ids = torch.cat([ids[:1, :1], torch.tensor([[4, 3, 3, 3, 3, 5]]), ids[:1, 1:]], dim=1)
        patches = torch.randn(16, 3 * 2 * 16, generator=generator)
        more = {"image_grid_thw": torch.tensor([[1, 4, 4]]), "mm_token_type_ids": (ids == 3).int()}
        return {"input_ids": ids, "pixel_values": patches, **more}
    if name.endswith("-cross"):
        return {"input_ids": ids, "encoder_hidden_states": torch.randn(3, 5, 32, generator=generator)}
    if name in ("clip", "siglip"):
        return {"input_ids": ids, "pixel_values": images}
    if model.main_input_name == "pixel_values":
        return {"pixel_values": images}
    if model.main_input_name == "input_features":
        return {"input_features": torch.randn(3, 8, 20, generator=generator), "decoder_input_ids": ids}
    encoded = getattr(model.config, "is_encoder_decoder", False)
    return {"input_ids": ids, **({"decoder_input_ids": ids[:, :7]} if encoded else {})}


@contextmanager
def blocks_called(name: str, dtype: torch.dtype = torch.float32) -> Iterator[list[tuple[Block, Stop]]]:
    """The blocks of a model with experts as linear layers, each with what the model calls it with."""
    model = family_model(name, dtype)
    inputs = family_inputs(name, model)
    inputs = {key: value.to(dtype) if value.is_floating_point() else value for key, value in inputs.items()}
    stops: dict[str, Stop] = {}
    with experts_as_linears(model), without_cache(model), torch.no_grad():
        blocks = find_structure(model).blocks
        handles = [
            block.module.register_forward_pre_hook(
                lambda module, args, kwargs, block=block: (
                    stops.setdefault(block.name, Stop.of(0, args, kwargs)),
                    None,
                )[1],
                with_kwargs=True,
            )
            for block in blocks
        ]
        model(**inputs)
        for handle in handles:
            handle.remove()
        yield [(block, stops[block.name]) for block in blocks]
