"""Encoders with a decoder."""

import torch
from torch import Generator

from .specimen import (
    DECODER,
    VISION,
    VOCABULARY,
    Draw,
    Example,
    Specimen,
    always,
    specimen,
    text,
    tokens,
    values,
    whole,
)


def _answer(generator: Generator) -> torch.Tensor:
    return tokens(generator, 1, 8)


def _pair(name: str, options: dict, inputs: Draw | None = None, **further) -> Specimen:
    inputs = inputs or text(decoder_input_ids=_answer)
    return specimen(name, "sequence to sequence", {**options, **further}, inputs)


def _ended(generator: Generator) -> Example:
    """A text whose last token says that it ends: classifiers look for it."""
    example = text()(generator)
    example["input_ids"][:, -1] = 2
    return example


_LONG = text(32, decoder_input_ids=_answer)


_SPECIAL = {"vocab_size": VOCABULARY, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
_SPECIAL |= {"decoder_start_token_id": 1, "forced_eos_token_id": None}
_T5 = {**_SPECIAL, "d_model": 64, "d_kv": 16, "d_ff": 96, "num_layers": 2, "num_heads": 4}
_BART = {
    **_SPECIAL,
    "d_model": 64,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_ffn_dim": 96,
    "decoder_ffn_dim": 96,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "max_position_embeddings": 64,
    "encoder_layerdrop": 0.0,
    "decoder_layerdrop": 0.0,
}
_GEMMA = {**DECODER, "layer_types": ["sliding_attention", "full_attention"], "sliding_window": 8}
_BERT = {**_SPECIAL, "model_type": "bert", "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2}
_BERT |= {"num_attention_heads": 2, "max_position_embeddings": 64}

SPECIMENS = [
    _pair("BartForConditionalGeneration", _BART),
    _pair("BartForSequenceClassification", _BART, _ended, num_labels=3),
    _pair("BigBirdPegasusForConditionalGeneration", _BART, attention_type="original_full"),
    _pair("BlenderbotForConditionalGeneration", _BART),
    _pair("BlenderbotSmallForConditionalGeneration", _BART),
    specimen(
        "EncoderDecoderModel", "sequence to sequence",
        {"encoder": _BERT, "decoder": {**_BERT, "is_decoder": True, "add_cross_attention": True}},
        text(decoder_input_ids=_answer),
    ),
    _pair(
        "FSMTForConditionalGeneration", _BART, src_vocab_size=VOCABULARY, tgt_vocab_size=VOCABULARY,
        langs=["en", "de"],
    ),
    _pair("LEDForConditionalGeneration", _BART,
          text(16, decoder_input_ids=_answer, global_attention_mask=always([1] + [0] * 15)), attention_window=4,
          max_encoder_position_embeddings=64,
          max_decoder_position_embeddings=32),
    _pair("LongT5ForConditionalGeneration", _T5, inputs=_LONG, local_radius=4),
    _pair("LongT5ForConditionalGeneration-global", _T5, inputs=_LONG, local_radius=4, global_block_size=4,
          encoder_attention_type="transient-global"),
    _pair("M2M100ForConditionalGeneration", _BART),
    _pair("MarianMTModel", _BART),
    _pair("MBartForConditionalGeneration", _BART),
    _pair("MT5ForConditionalGeneration", _T5, feed_forward_proj="gated-gelu"),
    _pair("MvpForConditionalGeneration", _BART, use_prompt=True, prompt_length=4, prompt_mid_dim=32),
    _pair("NllbMoeForConditionalGeneration", _BART, num_experts=4, encoder_sparse_step=2, decoder_sparse_step=2,
          expert_capacity=8),
    _pair("PegasusForConditionalGeneration", _BART),
    _pair("PegasusXForConditionalGeneration", _BART, inputs=_LONG, num_global_tokens=4, block_size=8),
    _pair("PLBartForConditionalGeneration", _BART),
    specimen(
        "ProphetNetForConditionalGeneration", "sequence to sequence",
        {
            **_SPECIAL, "hidden_size": 64, "num_encoder_layers": 2, "num_decoder_layers": 2, "encoder_ffn_dim": 96,
            "decoder_ffn_dim": 96, "num_encoder_attention_heads": 4, "num_decoder_attention_heads": 4,
            "max_position_embeddings": 64, "num_buckets": 8, "relative_max_distance": 16,
        },
        text(decoder_input_ids=_answer),
    ),
    _pair("SwitchTransformersForConditionalGeneration", _T5, num_experts=4, num_sparse_encoder_layers=1,
          num_sparse_decoder_layers=1, num_decoder_layers=2, expert_capacity=16),
    specimen("T5EncoderModel", "sequence to sequence", _T5, text()),
    _pair("T5ForConditionalGeneration", _T5),
    _pair("T5ForConditionalGeneration-gated", _T5, feed_forward_proj="gated-gelu", tie_word_embeddings=False,
          num_decoder_layers=3),
    specimen(
        "T5GemmaForConditionalGeneration", "sequence to sequence",
        {"encoder": _GEMMA, "decoder": {**_GEMMA, "cross_attention_hidden_size": 64}, "vocab_size": VOCABULARY},
        text(decoder_input_ids=_answer),
    ),
    _pair("UMT5ForConditionalGeneration", _T5, feed_forward_proj="gated-gelu"),
    specimen(
        "VisionEncoderDecoderModel", "sequence to sequence",
        {
            "encoder": {"model_type": "vit", **VISION},
            "decoder": {**_BERT, "is_decoder": True, "add_cross_attention": True},
        },
        values(pixel_values=(1, 3, 16, 16), decoder_input_ids=_answer,
               decoder_attention_mask=whole(1, 8)),
    ),
]  # fmt: skip
