"""Tiny random models of two hundred classes of transformers, made from the names of their configs' fields alone."""

import dataclasses
import inspect
from typing import Any

import torch
import transformers
from torch import Tensor
from transformers import CONFIG_MAPPING, PreTrainedModel
from transformers.models.auto import modeling_auto


#: What a field of that name gets.
SIZES: dict[str, Any] = {
    **dict.fromkeys(("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "embedding_size"), 32),
    **dict.fromkeys(("intermediate_size", "ffn_dim", "d_ff", "n_inner", "ffn_hidden_size", "hidden_dim"), 48),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim"), 48),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "num_decoder_layers"), 2),
    **dict.fromkeys(("encoder_layers", "decoder_layers"), 2),
    **dict.fromkeys(
        ("num_attention_heads", "n_head", "n_heads", "num_heads", "num_key_value_heads", "num_kv_heads"), 2
    ),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    **dict.fromkeys(("head_dim", "d_kv"), 16),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len", "vocab_size"), 64),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts"), 4),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size"), 32),
    **{"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "sliding_window": 16, "layer_norm_eps": 1e-5},
    **{"kv_lora_rank": 16, "q_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 16},
    **{"state_size": 8, "time_step_rank": 4, "mamba_d_state": 8, "mamba_n_heads": 4, "mamba_d_head": 16},
    **{"mamba_n_groups": 1, "mamba_chunk_size": 16, "mamba_d_conv": 4, "mamba_expand": 2},
    **{"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 2, "num_labels": 3},
    **{"image_size": 32, "patch_size": 8, "num_channels": 3},
}

_MAPPINGS = {
    "causal": modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    "seq2seq": modeling_auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES,
    "mlm": modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    "image": modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
}

#: Classes that are small and run with such a config, by what they read.
ZOO: dict[str, str] = {
    **dict.fromkeys(
        """
        AfmoeForCausalLM ApertusForCausalLM Apertus1p5TextForCausalLM ArceeForCausalLM
        AriaTextForCausalLM AXK1ForCausalLM AXK2ForCausalLM BartForCausalLM BeamForCausalLM
        BertLMHeadModel BertGenerationDecoder BigBirdForCausalLM BigBirdPegasusForCausalLM
        BioGptForCausalLM BitNetForCausalLM BlenderbotForCausalLM BlenderbotSmallForCausalLM
        BloomForCausalLM CamembertForCausalLM CohereForCausalLM Cohere2ForCausalLM
        Cohere2MoeForCausalLM CpmAntForCausalLM CTRLLMHeadModel CwmForCausalLM
        Data2VecTextForCausalLM DeepseekV2ForCausalLM DeepseekV3ForCausalLM DeepseekV32ForCausalLM
        DeepseekV4ForCausalLM DiffLlamaForCausalLM DogeForCausalLM DoryForCausalLM
        ElectraForCausalLM ErnieForCausalLM Ernie4_5ForCausalLM Ernie4_5_MoeForCausalLM
        LlamaForCausalLM Exaone4ForCausalLM ExaoneMoeForCausalLM FalconForCausalLM
        FalconMambaForCausalLM FlexOlmoForCausalLM FlintForCausalLM GemmaForCausalLM
        Gemma2ForCausalLM Gemma3ForCausalLM Gemma4UnifiedForCausalLM GlmForCausalLM Glm4ForCausalLM
        Glm4MoeForCausalLM Glm4MoeLiteForCausalLM GlmMoeDsaForCausalLM GPT2LMHeadModel
        GPTBigCodeForCausalLM GPTNeoXForCausalLM GPTNeoXJapaneseForCausalLM GptOssForCausalLM
        GraniteForCausalLM GraniteSWAForCausalLM GraniteMoeForCausalLM GraniteMoeSWAForCausalLM
        GraniteMoeSharedForCausalLM HeliumForCausalLM HrmTextForCausalLM HunYuanDenseV1ForCausalLM
        HunYuanMoEV1ForCausalLM HYV3ForCausalLM HYV4ForCausalLM HyperCLOVAXForCausalLM
        InklingForCausalLM Jais2ForCausalLM JetMoeForCausalLM Kolibri1ForCausalLM LagunaForCausalLM
        LaraMiniForCausalLM Lfm2ForCausalLM MambaForCausalLM MarianForCausalLM MBartForCausalLM
        MegatronBertForCausalLM MellumForCausalLM MiniCPM3ForCausalLM MiniMaxForCausalLM
        MiniMaxM2ForCausalLM MiniMaxM3VLForCausalLM MinistralForCausalLM Ministral3ForCausalLM
        MistralForCausalLM MixtralForCausalLM ModernBertDecoderForCausalLM MoshiForCausalLM
        MptForCausalLM MvpForCausalLM NanoChatForCausalLM NemotronForCausalLM NemotronHForCausalLM
        OlmoForCausalLM Olmo2ForCausalLM Olmo3ForCausalLM OlmoHybridForCausalLM OlmoeForCausalLM
        OpenAIGPTLMHeadModel OPTForCausalLM PegasusForCausalLM PersimmonForCausalLM PhiForCausalLM
        Phi3ForCausalLM PhimoeForCausalLM PLBartForCausalLM ProphetNetForCausalLM Qwen2ForCausalLM
        Qwen2MoeForCausalLM Qwen3ForCausalLM Qwen3MoeForCausalLM RemBertForCausalLM
        RobertaForCausalLM RobertaPreLayerNormForCausalLM RoFormerForCausalLM RwkvForCausalLM
        SeedOssForCausalLM SmolLM3ForCausalLM SolarOpenForCausalLM StableLmForCausalLM
        Starcoder2ForCausalLM TrOCRForCausalLM VaultGemmaForCausalLM WhisperForCausalLM
        XGLMForCausalLM XLMWithLMHeadModel XLMRobertaForCausalLM XLMRobertaXLForCausalLM
        XLNetLMHeadModel YoutuForCausalLM
        """.split(),
        "causal",
    ),
    **dict.fromkeys(
        """
        BartForConditionalGeneration BigBirdPegasusForConditionalGeneration
        BlenderbotForConditionalGeneration BlenderbotSmallForConditionalGeneration
        FSMTForConditionalGeneration LEDForConditionalGeneration LongT5ForConditionalGeneration
        M2M100ForConditionalGeneration MarianMTModel MBartForConditionalGeneration
        MT5ForConditionalGeneration MvpForConditionalGeneration NllbMoeForConditionalGeneration
        PegasusForConditionalGeneration PegasusXForConditionalGeneration
        PLBartForConditionalGeneration ProphetNetForConditionalGeneration SeamlessM4TForTextToText
        SeamlessM4Tv2ForTextToText SwitchTransformersForConditionalGeneration
        T5ForConditionalGeneration UMT5ForConditionalGeneration
        """.split(),
        "seq2seq",
    ),
    **dict.fromkeys(
        """
        AlbertForMaskedLM BertForMaskedLM BigBirdForMaskedLM CamembertForMaskedLM
        ConvBertForMaskedLM Data2VecTextForMaskedLM DebertaForMaskedLM DebertaV2ForMaskedLM
        DistilBertForMaskedLM ElectraForMaskedLM ErnieForMaskedLM EsmForMaskedLM EsmcForMaskedLM
        EuroBertForMaskedLM FlaubertWithLMHeadModel FNetForMaskedLM GteForMaskedLM
        JinaEmbeddingsV3ForMaskedLM LayoutLMForMaskedLM LongformerForMaskedLM
        MegatronBertForMaskedLM MobileBertForMaskedLM ModernBertForMaskedLM MPNetForMaskedLM
        NeoMMEForMaskedLM NomicBertForMaskedLM NystromformerForMaskedLM RemBertForMaskedLM
        RobertaForMaskedLM RobertaPreLayerNormForMaskedLM RoFormerForMaskedLM TapasForMaskedLM
        UltrabertForMaskedLM XLMRobertaForMaskedLM XLMRobertaXLForMaskedLM YosoForMaskedLM
        """.split(),
        "mlm",
    ),
    **dict.fromkeys(
        """
        BeitForImageClassification Data2VecVisionForImageClassification DeiTForImageClassification
        Dinov2ForImageClassification Dinov2WithRegistersForImageClassification
        IJepaForImageClassification ViTForImageClassification ViTMSNForImageClassification
        """.split(),
        "image",
    ),
}

#: Overflow in fp64, or come apart with weights of more than their usual size.
DELICATE = {
    "XGLMForCausalLM",
    "FSMTForConditionalGeneration",
    "ProphetNetForCausalLM",
    "ProphetNetForConditionalGeneration",
}


def specimen(name: str) -> PreTrainedModel:
    """A tiny model of a class, the same at every call; in fp64 where it can be."""
    kind = ZOO[name]
    model_type = next(found for found, names in _MAPPINGS[kind].items() if name == names or name in (*names,))
    config: Any = _config(CONFIG_MAPPING[model_type])
    config._experts_implementation = "eager"  # torch has no grouped product in fp64
    torch.manual_seed(0)
    model: Any = getattr(transformers, name)(config).eval()
    if name in DELICATE:
        return model
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1 and parameter.numel() and float(parameter.abs().max()) < 1:
                parameter.mul_(4)
    return model.double()


def specimen_data(name: str, count: int = 4) -> list[dict[str, Tensor]]:
    """What it reads, an example at a time."""
    generator = torch.Generator().manual_seed(1)
    if ZOO[name] == "image":
        dtype = next(specimen(name).parameters()).dtype
        return [{"pixel_values": torch.randn(1, 3, 32, 32, generator=generator, dtype=dtype)} for _ in range(count)]
    rows = [torch.randint(3, 60, (1, 12), generator=generator) for _ in range(count)]
    examples = [{"input_ids": row, "attention_mask": torch.ones_like(row)} for row in rows]
    if ZOO[name] == "seq2seq":
        return [{**example, "decoder_input_ids": example["input_ids"][:, :8].clone()} for example in examples]
    return examples


def _config(config_class: Any) -> Any:
    known = (
        {field.name for field in dataclasses.fields(config_class)}
        if dataclasses.is_dataclass(config_class)
        else set(inspect.signature(config_class.__init__).parameters)
    )
    standing_for = getattr(config_class, "attribute_map", {})
    given = {name: value for name, value in SIZES.items() if name in known}
    for name, value in SIZES.items():
        if standing_for.get(name) in known:
            given.setdefault(standing_for[name], value)
    return config_class(**given)
