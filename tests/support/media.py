"""Images, sounds, and tiny models that read them, with their processors."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from support.models import save_with_tokenizer, tiny
from transformers import (
    AutoTokenizer,
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Speech2TextConfig,
    Speech2TextFeatureExtractor,
    Speech2TextForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForCTC,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
)


RATE = 16_000
_TOWER = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
_SPEECH = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "vocab_size": 48,
    "pad_token_id": 1,
    "bos_token_id": 0,
    "eos_token_id": 2,
    "decoder_start_token_id": 3,
}


def images(count: int, size: tuple[int, int] = (20, 24), seed: int = 0) -> list[Image.Image]:
    """Noise, in color."""
    noise = np.random.default_rng(seed)
    return [Image.fromarray(noise.integers(0, 256, (*size, 3), dtype=np.uint8)) for _ in range(count)]


def sounds(lengths: list[int], rate: int = RATE, seed: int = 0) -> list[dict]:
    """Noise, as columns of ``datasets`` hold it."""
    noise = np.random.default_rng(seed)
    return [{"array": noise.standard_normal(length), "sampling_rate": rate} for length in lengths]


def vit() -> tuple[ViTForImageClassification, ViTImageProcessor]:
    torch.manual_seed(0)
    model = ViTForImageClassification(ViTConfig(**_TOWER, image_size=16, patch_size=4))
    return model.eval(), ViTImageProcessor(size={"height": 16, "width": 16})


def clip() -> tuple[CLIPModel, CLIPImageProcessor]:
    torch.manual_seed(0)
    text = {**_TOWER, "vocab_size": 64, "max_position_embeddings": 32, "eos_token_id": 2, "bos_token_id": 1}
    vision = {**_TOWER, "image_size": 16, "patch_size": 4}
    model = CLIPModel(CLIPConfig(text_config=text, vision_config=vision, projection_dim=16))
    return model.eval(), CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})


def wav2vec2(masked: bool) -> tuple[Wav2Vec2ForCTC, Wav2Vec2FeatureExtractor]:
    """Those with a norm of each layer were trained with masks, those with a norm of groups without."""
    torch.manual_seed(0)
    config = Wav2Vec2Config(
        **_TOWER,
        vocab_size=16,
        conv_dim=(16, 16),
        conv_kernel=(10, 3),
        conv_stride=(5, 2),
        feat_extract_norm="layer" if masked else "group",
        do_stable_layer_norm=masked,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
    )
    return Wav2Vec2ForCTC(config).eval(), Wav2Vec2FeatureExtractor(return_attention_mask=masked)


def whisper() -> tuple[WhisperForConditionalGeneration, WhisperFeatureExtractor]:
    torch.manual_seed(0)
    config = WhisperConfig(**_SPEECH, num_mel_bins=16, max_source_positions=50, max_target_positions=20)
    model = WhisperForConditionalGeneration(config).eval()
    return model, WhisperFeatureExtractor(feature_size=16, chunk_length=1)


def speech2text() -> tuple[Speech2TextForConditionalGeneration, None]:
    """Its processor needs torchaudio or numpy's spectrograms."""
    torch.manual_seed(0)
    config = Speech2TextConfig(
        **_SPEECH, input_feat_per_channel=16, conv_channels=16, max_source_positions=100, max_target_positions=20
    )
    model = Speech2TextForConditionalGeneration(config).eval()
    return model, Speech2TextFeatureExtractor(feature_size=16, num_mel_bins=16)


def llava(folder: Path) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    """Its tokenizer is made in a folder."""
    save_with_tokenizer(tiny("llama"), folder, "what is it? it is what it is.")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<image>"]})
    torch.manual_seed(0)
    text = LlamaConfig(**_TOWER, vocab_size=320, max_position_embeddings=64)
    vision = CLIPVisionConfig(**_TOWER, image_size=16, patch_size=4)
    mark = tokenizer.convert_tokens_to_ids("<image>")
    config = LlavaConfig(vision_config=vision, text_config=text, image_token_index=mark)
    reader = CLIPImageProcessor(size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16})
    sizes = {"patch_size": 4, "num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}
    processor = LlavaProcessor(image_processor=reader, tokenizer=tokenizer, image_token="<image>", **sizes)
    return LlavaForConditionalGeneration(config).eval(), processor


def qwen2vl(count: int) -> tuple[Qwen2VLForConditionalGeneration, list[dict]]:
    """With examples as its processor makes them: prompts of one image and of two."""
    torch.manual_seed(0)
    start, end, mark = 60, 61, 62
    text = {**_TOWER, "num_key_value_heads": 4, "vocab_size": 64, "max_position_embeddings": 64}
    text["rope_parameters"] = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 10000.0}
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2, "patch_size": 4}
    tokens = {"image_token_id": mark, "video_token_id": 63, "vision_start_token_id": start, "vision_end_token_id": end}
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=text, vision_config=vision, **tokens)).eval()
    rows = []
    for number in range(count):
        images = 1 + number % 2
        ids = torch.tensor([[5, *([start, *[mark] * 4, end] * images), 7, 8]])
        row = {"input_ids": ids, "mm_token_type_ids": (ids == mark).long()}
        grid = torch.tensor([[1, 4, 4]] * images)
        rows.append({**row, "pixel_values": torch.randn(16 * images, 96), "image_grid_thw": grid})
    return model, rows
