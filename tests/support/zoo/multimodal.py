"""Language models that see or hear."""

import torch
from torch import Generator, Tensor

from .specimen import (
    AUDIO_TOKEN,
    DECODER,
    IMAGE_TOKEN,
    TEXT,
    VIDEO_TOKEN,
    VISION,
    VISION_END,
    VISION_START,
    Draw,
    Example,
    Specimen,
    always,
    specimen,
    text,
    tokens,
    values,
    whole,
    with_placeholders,
)


_IMAGE = {"pixel_values": (1, 3, 16, 16)}
_CLIP, _SIGLIP = {"model_type": "clip_vision_model", **VISION}, {"model_type": "siglip_vision_model", **VISION}
_PIXTRAL = {"model_type": "pixtral", **VISION, "head_dim": 16}
_SLIDING = {"layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
_GEMMA = {**DECODER, **_SLIDING}
#: Qwen's: 16 patches of two frames, four of which become one token.
_PATCHES = {"pixel_values": (16, 96), "image_grid_thw": always([1, 4, 4])}
_QWEN_VISION = {"depth": 2, "num_heads": 2, "patch_size": 4, "spatial_merge_size": 2, "temporal_patch_size": 2}
_MROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
_QWEN = {
    "image_token_id": IMAGE_TOKEN,
    "video_token_id": VIDEO_TOKEN,
    "vision_start_token_id": VISION_START,
    "vision_end_token_id": VISION_END,
}
_MODERN_QWEN_VISION = {**_QWEN_VISION, "hidden_size": 32, "intermediate_size": 48, "out_hidden_size": 64}


def _words(model_type: str, **further) -> dict:
    return {"model_type": model_type, **DECODER, **further}


def _sees(name: str, vision: dict, language: dict, count: int, inputs: dict | None = None, **further) -> Specimen:
    """A language model with images where its text says so, each of which is so many tokens."""
    options = {"vision_config": vision, "text_config": language, "image_token_id": IMAGE_TOKEN, **further}
    return specimen(name, "multimodal", options, with_placeholders(IMAGE_TOKEN, count, **(inputs or _IMAGE)))


def _qwen(name: str, vision: dict, language: dict, **further) -> Specimen:
    types = {"mm_token_type_ids": always([0] + [1] * 4 + [0] * 7)}
    return _sees(name, vision, {**DECODER, "rope_parameters": _MROPE, **language}, 4, {**_PATCHES, **types},
                 **{**_QWEN, **further})  # fmt: skip


def _patches(generator: Generator) -> Tensor:
    """Row, column and pixels of each of 16 patches."""
    rows, columns = torch.meshgrid(torch.arange(1.0, 5), torch.arange(1.0, 5), indexing="ij")
    places = torch.stack([rows, columns], dim=-1).reshape(1, 16, 2)
    return torch.cat([places, torch.randn(1, 16, 48, generator=generator)], dim=-1)


def _sees_and_hears(generator: Generator) -> Example:
    """Gemma 4's: 16 patches that become four tokens, and 16 frames (as many bands as first channels) that do."""
    example = with_placeholders(
        IMAGE_TOKEN,
        4,
        12,
        pixel_values=(1, 16, 48),
        input_features=(1, 16, 8),
        input_features_mask=lambda _: torch.ones(1, 16, dtype=torch.bool),
    )(generator)
    example["input_ids"][:, -4:] = AUDIO_TOKEN
    example["mm_token_type_ids"] = (example["input_ids"] == IMAGE_TOKEN).long()
    example["mm_token_type_ids"][:, -4:] = 3
    columns, rows = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="xy")
    example["image_position_ids"] = torch.stack([columns, rows], dim=-1).reshape(1, 16, 2)
    return example  # fmt: skip


def _other(name: str, inputs: Draw, **options) -> Specimen:
    return specimen(name, "multimodal", options, inputs)


_BERT = {**TEXT, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}
_BLIP_WORDS = {**_BERT, "encoder_hidden_size": 32, "sep_token_id": 2, "projection_dim": 32}
_BLIP = {"vision_config": {**VISION, "projection_dim": 32}, "text_config": _BLIP_WORDS, "projection_dim": 32}
_QFORMER = {**_BERT, "encoder_hidden_size": 32, "cross_attention_frequency": 1}
_OPT = {"model_type": "opt", **TEXT, "ffn_dim": 96}
_BART = {"model_type": "bart", "vocab_size": 96, "d_model": 64, "encoder_layers": 2, "decoder_layers": 2,
         "encoder_ffn_dim": 96, "decoder_ffn_dim": 96, "encoder_attention_heads": 4, "decoder_attention_heads": 4,
         "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
         "decoder_start_token_id": 1}  # fmt: skip

SPECIMENS = [
    _sees("AyaVisionForConditionalGeneration", _SIGLIP, _words("cohere2", **_SLIDING), 4),
    _other("BlipForConditionalGeneration", text(**_IMAGE), **_BLIP),
    _other("BlipForQuestionAnswering", text(**_IMAGE, labels=lambda generator: tokens(generator, 1, 8)), **_BLIP),
    _sees("Blip2ForConditionalGeneration", VISION, _OPT, 4, num_query_tokens=4, qformer_config=_QFORMER),
    _sees("Cohere2VisionForConditionalGeneration", _SIGLIP, _words("cohere2", **_SLIDING), 4,
          alignment_intermediate_size=48),
    _sees("Florence2ForConditionalGeneration",
          {"depths": [1, 1], "patch_size": [3, 3], "patch_stride": [2, 2], "patch_padding": [1, 1],
           "patch_prenorm": [False, True], "embed_dim": [16, 32], "num_heads": [1, 2], "num_groups": [1, 2],
           "window_size": 4, "projection_dim": 64, "drop_path_rate": 0.0, "max_position_embeddings": 10},
          _BART, 17, {**_IMAGE, "decoder_input_ids": lambda generator: tokens(generator, 1, 8)}),
    _other("FuyuForCausalLM", with_placeholders(
        IMAGE_TOKEN, 4, image_patches=(1, 4, 48),
        image_patches_indices=lambda generator: torch.tensor([[-1, 0, 1, 2, 3] + [-1] * 7]),
    ), text_config={"model_type": "persimmon", **TEXT}, patch_size=4, image_size=16, image_token_id=IMAGE_TOKEN,
        **TEXT),
    _sees("Gemma3ForConditionalGeneration", _SIGLIP, _GEMMA, 4,
          {**_IMAGE, "token_type_ids": always([0] + [1] * 4 + [0] * 7)}, mm_tokens_per_image=4,
          boi_token_index=VISION_START, eoi_token_index=VISION_END),
    _other("Gemma4ForConditionalGeneration", _sees_and_hears,
           text_config={**_GEMMA, "vocab_size_per_layer_input": 96, "hidden_size_per_layer_input": 8,
                        "global_head_dim": 16},
           vision_config={**VISION, "num_key_value_heads": 2, "head_dim": 16, "global_head_dim": 16,
                          "pooling_kernel_size": 2, "position_embedding_size": 16},
           audio_config={"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "conv_kernel_size": 3,
                         "subsampling_conv_channels": [8, 4], "attention_chunk_size": 4, "attention_context_left": 5,
                         "output_proj_dims": 32},
           image_token_id=IMAGE_TOKEN, video_token_id=VIDEO_TOKEN, audio_token_id=AUDIO_TOKEN,
           boi_token_id=VISION_START, eoi_token_id=VISION_END, boa_token_id=88, eoa_token_index=89),
    _other("GitForCausalLM", text(**_IMAGE), **TEXT, vision_config=VISION),
    _qwen("Glm4vForConditionalGeneration", {**_MODERN_QWEN_VISION, "image_size": 16}, {},
          image_start_token_id=VISION_START, image_end_token_id=VISION_END, video_start_token_id=88,
          video_end_token_id=89),
    _sees("Idefics2ForConditionalGeneration", VISION, _words("mistral"), 4,
          {"pixel_values": (1, 1, 3, 16, 16), "pixel_attention_mask": whole(1, 1, 16, 16)},
          perceiver_config={"hidden_size": 64, "resampler_n_latents": 4, "resampler_depth": 2, "resampler_n_heads": 4,
                            "resampler_head_dim": 16, "num_key_value_heads": 2}),
    _sees("Idefics3ForConditionalGeneration", VISION, _words("llama"), 4,
          {"pixel_values": (1, 1, 3, 16, 16), "pixel_attention_mask": whole(1, 1, 16, 16)}),
    _other("InstructBlipForConditionalGeneration",
           with_placeholders(IMAGE_TOKEN, 4, **_IMAGE, qformer_input_ids=lambda generator: tokens(generator, 1, 6),
                             qformer_attention_mask=whole(1, 6)),
           vision_config=VISION, qformer_config=_QFORMER, text_config=_OPT, num_query_tokens=4,
           image_token_index=IMAGE_TOKEN),
    _sees("InternVLForConditionalGeneration", {**VISION, "image_size": [16, 16], "patch_size": [4, 4]},
          _words("qwen2"), 4),
    _sees("Lfm2VlForConditionalGeneration", {"model_type": "siglip2_vision_model", **VISION, "num_patches": 16,
          "vision_use_head": False}, _words("lfm2", layer_types=["conv", "full_attention"], block_multiple_of=16), 4,
          {"pixel_values": (1, 16, 48), "pixel_attention_mask": whole(1, 16), "spatial_shapes": always([4, 4])},
          projector_hidden_size=48),
    _sees("LlavaForConditionalGeneration", _CLIP, _words("llama"), 16),
    _sees("LlavaForConditionalGeneration-pixtral", _PIXTRAL, _words("mistral"), 16,
          {**_IMAGE, "image_sizes": always([16, 16])}, vision_feature_layer=-1,
          vision_feature_select_strategy="full"),
    _sees("LlavaNextForConditionalGeneration", _CLIP, _words("llama"), 36,
          {"pixel_values": (1, 2, 3, 16, 16), "image_sizes": always([16, 16])}, image_grid_pinpoints=[[16, 16]]),
    _sees("LlavaOnevisionForConditionalGeneration", _SIGLIP, _words("qwen2"), 36,
          {"pixel_values": (1, 2, 3, 16, 16), "image_sizes": always([16, 16])}, image_grid_pinpoints=[[16, 16]],
          video_token_index=VIDEO_TOKEN),
    _sees("Mistral3ForConditionalGeneration", _PIXTRAL, _words("mistral"), 4,
          {**_IMAGE, "image_sizes": always([16, 16])}),
    _other("MllamaForConditionalGeneration", with_placeholders(
        IMAGE_TOKEN, 1, pixel_values=(1, 1, 2, 3, 16, 16), aspect_ratio_ids=always([2]),
        aspect_ratio_mask=whole(1, 1, 2), cross_attention_mask=whole(1, 9, 1, 2),
    ), image_token_index=IMAGE_TOKEN, text_config={**DECODER, "num_hidden_layers": 3, "cross_attention_layers": [1]},
        vision_config={"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_global_layers": 1,
                       "attention_heads": 2, "image_size": 16, "patch_size": 4, "max_num_tiles": 2,
                       "vision_output_dim": 64, "intermediate_layers_indices": [0],
                       "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]]}),
    _sees("PaliGemmaForConditionalGeneration", _SIGLIP, _words("gemma"), 16, projection_dim=64),
    _other("Pix2StructForConditionalGeneration",
           values(flattened_patches=_patches, attention_mask=whole(1, 16),
                  decoder_input_ids=lambda generator: tokens(generator, 1, 8)),
           text_config={"vocab_size": 96, "hidden_size": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4,
                        "decoder_start_token_id": 0},
           vision_config={"hidden_size": 64, "patch_embed_hidden_size": 48, "d_ff": 96, "d_kv": 16,
                          "num_hidden_layers": 2, "num_attention_heads": 4, "seq_len": 32, "patch_size": 4}),
    _other("Qwen2AudioForConditionalGeneration",
           with_placeholders(AUDIO_TOKEN, 10, input_features=(1, 16, 40), feature_attention_mask=whole(1, 40)),
           text_config=_words("qwen2"), audio_token_index=AUDIO_TOKEN,
           audio_config={"model_type": "qwen2_audio_encoder", "num_mel_bins": 16, "encoder_layers": 2,
                         "encoder_attention_heads": 2, "encoder_ffn_dim": 48, "d_model": 32,
                         "max_source_positions": 20}),
    _qwen("Qwen2VLForConditionalGeneration", {**_QWEN_VISION, "embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}, {}),
    _qwen("Qwen2_5_VLForConditionalGeneration",
          {**_MODERN_QWEN_VISION, "window_size": 8, "fullatt_block_indexes": [1]}, {}),
    _qwen("Qwen3VLForConditionalGeneration",
          {**_MODERN_QWEN_VISION, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1]}, {}),
    _qwen("Qwen3VLMoeForConditionalGeneration",
          {**_MODERN_QWEN_VISION, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
          {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}),
    _sees("SmolVLMForConditionalGeneration", VISION, _words("llama"), 4,
          {"pixel_values": (1, 1, 3, 16, 16), "pixel_attention_mask": whole(1, 1, 16, 16)}),
    _sees("VipLlavaForConditionalGeneration", _CLIP, _words("llama"), 16, vision_feature_layers=[-2, -1]),
    _other("VoxtralForConditionalGeneration", with_placeholders(AUDIO_TOKEN, 5, input_features=(1, 16, 40)),
           text_config=_words("llama"), audio_token_id=AUDIO_TOKEN,
           audio_config={"model_type": "voxtral_encoder", "num_mel_bins": 16, "num_hidden_layers": 2,
                         "num_attention_heads": 2, "hidden_size": 32, "intermediate_size": 128,
                         "max_source_positions": 20}),
]  # fmt: skip
