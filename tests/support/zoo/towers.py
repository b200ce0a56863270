"""Two towers whose answers are compared, and encoders that read text and image together."""

from .specimen import TEXT, VISION, Specimen, always, specimen, text, values, whole


_IMAGE = {"pixel_values": (1, 3, 16, 16)}
_WORDS = {**VISION, **{key: TEXT[key] for key in ("vocab_size", "pad_token_id", "bos_token_id", "eos_token_id")}}
_WORDS |= {"max_position_embeddings": 64, "projection_dim": 32}
_SIGHT = {**VISION, "projection_dim": 32}
_PAIR = {"text_config": _WORDS, "vision_config": _SIGHT, "projection_dim": 32}
_SIGLIP = {"text_config": {**_WORDS, "projection_size": 32}, "vision_config": VISION}
_BERT = {**TEXT, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 2}


def _both(name: str, options: dict = _PAIR, inputs=None, **further) -> Specimen:
    return specimen(name, "towers", {**options, **further}, inputs or text(**_IMAGE))


SPECIMENS = [
    _both("AlignModel", {"text_config": _BERT, "projection_dim": 32}, text(pixel_values=(1, 3, 32, 32)),
          vision_config={"image_size": 32, "hidden_dim": 32, "kernel_sizes": [3, 3], "in_channels": [32, 16],
                         "out_channels": [16, 32], "strides": [1, 2], "num_block_repeats": [1, 1],
                         "expand_ratios": [1, 2], "width_coefficient": 1.0, "depth_coefficient": 1.0}),
    _both("AltCLIPModel", text_config={**_WORDS, "project_dim": 32}),
    _both("BlipModel", {**_PAIR, "text_config": {**_WORDS, "encoder_hidden_size": 32, "bos_token_id": 1}}),
    _both("BridgeTowerModel", TEXT, text(**_IMAGE, pixel_mask=whole(1, 16, 16)), text_config=TEXT,
          vision_config={**VISION, "hidden_size": 64}),
    _both("ChineseCLIPModel"),
    _both("ClapModel", {"text_config": {**_BERT, "projection_dim": 32}, "projection_dim": 32},
          text(input_features=(1, 1, 64, 16), is_longer=always([0])),
          audio_config={"spec_size": 32, "num_mel_bins": 16, "window_size": 4, "patch_size": 4, "patch_stride": [4, 4],
                        "patch_embeds_hidden_size": 16, "depths": [2, 1], "num_attention_heads": [1, 2],
                        "hidden_size": 32, "projection_dim": 32, "num_hidden_layers": 2, "num_classes": 4,
                        "enable_fusion": False}),
    _both("CLIPModel"),
    _both("CLIPSegForImageSegmentation", reduce_dim=16, decoder_num_attention_heads=2, decoder_intermediate_size=24,
          extract_layers=[0, 1]),
    _both("CLIPTextModelWithProjection", _WORDS, text()),
    _both("CLIPVisionModel", _SIGHT, values(**_IMAGE)),
    _both("FlavaModel", {"text_config": _BERT, "image_config": VISION, "projection_dim": 32, "init_codebook": False},
          text(**_IMAGE), hidden_size=32, multimodal_config={**VISION}, image_codebook_config={"hidden_size": 8}),
    _both("GroupViTModel", {**_PAIR, "projection_intermediate_dim": 48}, vision_config={
        **VISION, "hidden_size": 32, "depths": [1, 1], "num_group_tokens": [4, 0], "num_output_groups": [4, 4],
    }),
    _both("LxmertModel", {**_BERT, "l_layers": 2, "r_layers": 1, "x_layers": 1, "visual_feat_dim": 16},
          text(visual_feats=(1, 4, 16), visual_pos=(1, 4, 4))),
    _both("OwlViTModel"),
    _both("Siglip2Model", {**_SIGLIP, "vision_config": {**VISION, "num_patches": 16}}, text(
        pixel_values=(1, 16, 48), pixel_attention_mask=whole(1, 16), spatial_shapes=always([4, 4])
    )),
    _both("SiglipForImageClassification", _SIGLIP, values(**_IMAGE), num_labels=3),
    _both("SiglipModel", _SIGLIP),
    _both("ViltForQuestionAnswering", {**_BERT, **VISION, "num_labels": 3},
          text(**_IMAGE, pixel_mask=whole(1, 16, 16))),
    _both("VisionTextDualEncoderModel", {"projection_dim": 32, "text_config": {"model_type": "bert", **_BERT},
          "vision_config": {"model_type": "vit", **VISION}}),
    _both("VisualBertModel", {**_BERT, "visual_embedding_dim": 16}, text(
        visual_embeds=(1, 4, 16), visual_attention_mask=whole(1, 4), visual_token_type_ids=whole(1, 4)
    )),
    _both("XCLIPModel", {**_PAIR, "vision_config": {**_SIGHT, "num_frames": 2, "mit_hidden_size": 32,
          "mit_intermediate_size": 48, "mit_num_hidden_layers": 1, "mit_num_attention_heads": 2},
          "prompt_layers": 1, "prompt_num_attention_heads": 2}, text(pixel_values=(1, 2, 3, 16, 16))),
]  # fmt: skip
