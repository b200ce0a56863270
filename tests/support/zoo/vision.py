"""Models of images and films."""

import torch

from .specimen import VISION, Draw, Specimen, specimen, values


_SMALL, _LARGE = values(pixel_values=(1, 3, 16, 16)), values(pixel_values=(1, 3, 32, 32))


def _image(name: str, options: dict | None = None, inputs: Draw = _SMALL, **further) -> Specimen:
    return specimen(name, "vision", {**(VISION if options is None else options), **further}, inputs)


_STAGES = {"image_size": 32, "depths": [2, 1], "drop_path_rate": 0.0}
_SWIN = {**_STAGES, "patch_size": 2, "embed_dim": 16, "num_heads": [1, 2], "window_size": 4}
_CONVOLUTIONS = {**_STAGES, "patch_size": 2, "num_stages": 2, "hidden_sizes": [16, 32]}
_PYRAMID = {**_STAGES, "num_encoder_blocks": 2, "num_attention_heads": [1, 2], "hidden_sizes": [16, 32]}
_PYRAMID |= {"strides": [2, 2], "mlp_ratios": [2, 2]}
_SEGFORMER = {**_PYRAMID, "sr_ratios": [2, 1], "patch_sizes": [3, 3], "decoder_hidden_size": 32}
_RESNET = {"model_type": "resnet", "embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1]}
_RESNET |= {"layer_type": "basic", "out_indices": [2]}
_DETR = {
    "backbone_config": _RESNET,
    "num_queries": 5,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
}
_BACKBONE = {"model_type": "dinov2", **VISION, "out_indices": [1, 2], "reshape_hidden_states": False}
_MASKED = {"decoder_num_attention_heads": 2, "decoder_hidden_size": 32, "decoder_num_hidden_layers": 1}
_MASKED |= {"decoder_intermediate_size": 48}

SPECIMENS = [
    _image("BeitForImageClassification", use_relative_position_bias=True, num_labels=3, drop_path_rate=0.0),
    _image("BeitModel-shared-bias", use_shared_relative_position_bias=True, drop_path_rate=0.0),
    _image("ConditionalDetrForObjectDetection", _DETR, _LARGE),
    _image("ConvNextForImageClassification", _CONVOLUTIONS, _LARGE, layer_scale_init_value=0.1),
    _image("ConvNextV2Model", _CONVOLUTIONS, _LARGE),
    _image("CvtForImageClassification", {}, _LARGE, patch_sizes=[3, 3], patch_stride=[2, 2], patch_padding=[1, 1],
           embed_dim=[16, 32], num_heads=[1, 2], depth=[1, 2], mlp_ratio=[2.0, 2.0], attention_drop_rate=[0.0, 0.0],
           drop_rate=[0.0, 0.0], drop_path_rate=[0.0, 0.0], qkv_bias=[True, True], cls_token=[False, True],
           qkv_projection_method=["dw_bn", "dw_bn"], kernel_qkv=[3, 3], padding_kv=[1, 1], stride_kv=[2, 2],
           padding_q=[1, 1], stride_q=[1, 1]),
    _image("DeformableDetrForObjectDetection", _DETR, _LARGE, num_feature_levels=2, encoder_n_points=2,
           decoder_n_points=2),
    _image("DeiTForImageClassification", num_labels=3),
    _image("DeiTForImageClassificationWithTeacher", num_labels=3),
    _image("DepthAnythingForDepthEstimation", {}, backbone_config=_BACKBONE, patch_size=4, reassemble_hidden_size=32,
           reassemble_factors=[2, 1], neck_hidden_sizes=[8, 16], fusion_hidden_size=8, head_hidden_size=8),
    _image("DetrForObjectDetection", _DETR, _LARGE),
    _image("Dinov2ForImageClassification", num_labels=3),
    _image("Dinov2Model-gated", use_swiglu_ffn=True),
    _image("Dinov2WithRegistersModel"),
    _image("DINOv3ViTModel", num_register_tokens=2),
    _image("DINOv3ViTModel-gated", use_gated_mlp=True),
    _image("DPTForDepthEstimation", num_hidden_layers=4, backbone_out_indices=[0, 1, 2, 3],
           neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=8),
    _image("FocalNetModel", _STAGES, _LARGE, patch_size=4, embed_dim=16, hidden_sizes=[16, 32], focal_levels=[2, 2],
           focal_windows=[3, 3]),
    _image("GLPNForDepthEstimation", _SEGFORMER, _LARGE),
    _image("HieraModel", {}, _LARGE, image_size=[32, 32], patch_size=[3, 3], patch_stride=[2, 2],
           patch_padding=[1, 1], embed_dim=16, depths=[1, 1, 1], num_heads=[1, 2, 4], num_query_pool=2,
           masked_unit_size=[4, 4], masked_unit_attention=[True, False, False], mlp_ratio=2.0),
    _image("IJepaModel"),
    _image("ImageGPTModel", {"vocab_size": 33, "n_positions": 16, "n_embd": 32, "n_layer": 2, "n_head": 2},
           values(input_ids=lambda generator: torch.randint(0, 32, (1, 16), generator=generator))),
    _image("Llama4VisionModel", intermediate_size=128, vision_output_dim=32, projector_input_dim=32,
           projector_output_dim=32),
    _image("MobileViTForImageClassification", {}, _LARGE, image_size=32, hidden_sizes=[16, 24, 32],
           neck_hidden_sizes=[4, 8, 8, 16, 16, 16, 32], num_attention_heads=2, num_labels=3, initializer_range=0.6),
    _image("PoolFormerModel", {}, _LARGE, num_encoder_blocks=2, depths=[1, 1], hidden_sizes=[16, 32],
           patch_sizes=[3, 3], strides=[2, 2], padding=[1, 1]),
    _image("PvtForImageClassification", _PYRAMID, _LARGE, sequence_reduction_ratios=[2, 1], patch_sizes=[4, 2],
           strides=[4, 2], num_labels=3),
    _image("PvtV2ForImageClassification", _PYRAMID, _LARGE, sr_ratios=[2, 1], patch_sizes=[3, 3], num_labels=3),
    _image("SamModel", {}, values(
        pixel_values=(1, 3, 16, 16), input_points=(1, 1, 2, 2),
        input_labels=lambda generator: torch.ones(1, 1, 2, dtype=torch.long),
    ), vision_config={**VISION, "output_channels": 32, "num_pos_feats": 16, "global_attn_indexes": [1],
                      "window_size": 2, "mlp_dim": 48},
       prompt_encoder_config={"hidden_size": 32, "image_size": 16, "patch_size": 4, "mask_input_channels": 4},
       mask_decoder_config={"hidden_size": 32, "mlp_dim": 48, "num_attention_heads": 2, "iou_head_hidden_dim": 32,
                            "num_hidden_layers": 2}),
    _image("SegformerForImageClassification", _SEGFORMER, _LARGE, num_labels=3),
    _image("SegformerForSemanticSegmentation", _SEGFORMER, _LARGE, num_labels=3),
    _image("SwinForImageClassification", _SWIN, _LARGE, num_labels=3),
    _image("Swinv2Model", _SWIN, _LARGE),
    _image("TimesformerModel", num_frames=2, inputs=values(pixel_values=(1, 2, 3, 16, 16))),
    _image("VideoMAEForVideoClassification", num_frames=2, num_labels=3,
           inputs=values(pixel_values=(1, 2, 3, 16, 16)), **_MASKED),
    _image("ViTForImageClassification", num_labels=3),
    _image("ViTMAEForPreTraining", **_MASKED, inputs=values(pixel_values=(1, 3, 16, 16), noise=(1, 16))),
    _image("ViTModel"),
    _image("ViTMSNModel"),
    _image("VivitModel", num_frames=4, tubelet_size=[2, 4, 4], inputs=values(pixel_values=(1, 4, 3, 16, 16))),
    _image("YolosForObjectDetection", image_size=[16, 16], num_detection_tokens=5, num_labels=3),
]  # fmt: skip
