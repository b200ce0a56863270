"""Models of sound: waves, and spectrograms."""

import torch
from torch import Generator

from .specimen import TEXT, VOCABULARY, Draw, Specimen, specimen, tokens, values, whole


#: 39 frames after the two convolutions of `_WAVE`.
_SOUND = values(input_values=(1, 320), attention_mask=whole(1, 320))
_WAVE = {
    **TEXT,
    "conv_dim": [16, 16],
    "conv_kernel": [8, 4],
    "conv_stride": [4, 2],
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 4,
    "layerdrop": 0.0,
    "apply_spec_augment": False,
    "classifier_proj_size": 32,
    "codevector_dim": 16,
    "proj_codevector_dim": 16,
    "num_codevectors_per_group": 4,
    "tdnn_dim": [32, 32],
    "tdnn_kernel": [3, 1],
    "tdnn_dilation": [1, 1],
    "xvector_output_dim": 32,
}


def _wave(name: str, **further) -> Specimen:
    return specimen(name, "audio", {**_WAVE, **further}, _SOUND)


def _spectrum(name: str, options: dict, inputs: Draw, **further) -> Specimen:
    return specimen(name, "audio", {**options, **further}, inputs)


def _answer(generator: Generator) -> torch.Tensor:
    return tokens(generator, 1, 8)


_STACKS = {
    "vocab_size": VOCABULARY,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "decoder_start_token_id": 1,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "max_target_positions": 32,
}
_WHISPER = {**_STACKS, "num_mel_bins": 16, "max_source_positions": 20, "begin_suppress_tokens": None}
_CONFORMER = {**TEXT, "layerdrop": 0.0, "apply_spec_augment": False, "conv_depthwise_kernel_size": 3}

SPECIMENS = [
    _spectrum("ASTForAudioClassification", {**TEXT, "max_length": 32, "num_mel_bins": 16, "patch_size": 8,
              "frequency_stride": 8, "time_stride": 8, "num_labels": 3}, values(input_values=(1, 32, 16))),
    _wave("Data2VecAudioForCTC", conv_pos_kernel_size=3, num_conv_pos_embeddings=2),
    _wave("HubertForCTC"),
    _wave("HubertForSequenceClassification", num_labels=3, use_weighted_layer_sum=True),
    _spectrum(
        "MoonshineForConditionalGeneration", {**TEXT, "encoder_num_hidden_layers": 2, "decoder_num_hidden_layers": 2,
         "encoder_num_attention_heads": 4, "decoder_num_attention_heads": 4},
        values(input_values=(1, 2000), decoder_input_ids=_answer),
    ),
    _spectrum(
        "ParakeetForCTC", {"vocab_size": VOCABULARY, "pad_token_id": 0, "encoder_config": {
            "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
            "num_mel_bins": 16, "conv_kernel_size": 3, "subsampling_factor": 4, "subsampling_conv_channels": 8,
            "max_position_embeddings": 64, "layerdrop": 0.0,
        }},
        values(input_features=(1, 40, 16), attention_mask=whole(1, 40)),
    ),
    _wave("SEWForCTC", squeeze_factor=2),
    _wave("SEWDForCTC", squeeze_factor=2, position_buckets=8, max_position_embeddings=64),
    _spectrum(
        "Speech2TextForConditionalGeneration", {**_STACKS, "num_conv_layers": 2, "conv_kernel_sizes": [3, 3],
         "conv_channels": 32, "input_feat_per_channel": 16, "max_source_positions": 40, "encoder_layerdrop": 0.0},
        values(input_features=(1, 40, 16), attention_mask=whole(1, 40), decoder_input_ids=_answer),
    ),
    specimen(
        "SpeechT5ForSpeechToText", "audio",
        {**_WAVE, **_STACKS, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0, "encoder_max_relative_position": 16},
        values(input_values=(1, 320), attention_mask=whole(1, 320), decoder_input_ids=_answer),
    ),
    _wave("UniSpeechForCTC"),
    _wave("UniSpeechSatForCTC"),
    _spectrum("Wav2Vec2BertForCTC", _CONFORMER, values(input_features=(1, 24, 20), attention_mask=whole(1, 24)),
              feature_projection_input_dim=20, left_max_position_embeddings=4, right_max_position_embeddings=2),
    _wave("Wav2Vec2ConformerForCTC", conv_depthwise_kernel_size=3),
    _wave("Wav2Vec2ConformerModel-rotary", conv_depthwise_kernel_size=3, position_embeddings_type="rotary"),
    _wave("Wav2Vec2ForCTC"),
    _wave("Wav2Vec2ForCTC-stable", do_stable_layer_norm=True, feat_extract_norm="layer", conv_bias=True),
    _wave("Wav2Vec2ForSequenceClassification", num_labels=3),
    _wave("WavLMForSequenceClassification", num_labels=3, num_buckets=8, max_bucket_distance=16),
    _wave("WavLMModel-stable", do_stable_layer_norm=True, num_buckets=8, max_bucket_distance=16),
    _spectrum("WhisperForAudioClassification", _WHISPER, values(input_features=(1, 16, 40)), num_labels=3),
    _spectrum("WhisperForConditionalGeneration", _WHISPER,
              values(input_features=(1, 16, 40), decoder_input_ids=_answer)),
]  # fmt: skip
