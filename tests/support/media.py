"""Images, sounds, and tiny models that read them, with their processors."""

import numpy as np
import torch
from PIL import Image
from transformers import (
    CLIPConfig,
    CLIPImageProcessor,
    CLIPModel,
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
