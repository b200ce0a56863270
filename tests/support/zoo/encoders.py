"""Encoders of text, and of text with its layout on a page."""

import torch
from torch import Generator, Tensor

from .specimen import DECODER, TEXT, VOCABULARY, Draw, Specimen, always, specimen, text, tokens


def _encoder(name: str, options: dict | None = None, inputs: Draw | None = None, **further) -> Specimen:
    return specimen(name, "encoders", {**(TEXT if options is None else options), **further}, inputs or text())


def _boxes(generator: Generator) -> Tensor:
    """Left, top, right, bottom of every word."""
    start, size = torch.randint(0, 100, (2, 1, 12, 2), generator=generator)
    return torch.cat([start, start + size], dim=-1)


_RELATIVE = {
    **TEXT,
    "relative_attention": True,
    "position_buckets": 8,
    "pos_att_type": ["p2c", "c2p"],
    "norm_rel_ebd": "layer_norm",
    "type_vocab_size": 0,
}
_PAGE = {**TEXT, "max_2d_position_embeddings": 256}
_SPAN = {"vocab_size": VOCABULARY, "pad_token_id": 0}

SPECIMENS = [
    _encoder("AlbertForMaskedLM", embedding_size=32),
    _encoder("AlbertModel-groups", embedding_size=32, num_hidden_layers=4, num_hidden_groups=2, inner_group_num=2),
    _encoder("BertForMaskedLM"),
    _encoder("BertForSequenceClassification", num_labels=3),
    _encoder("BertModel-relu", hidden_act="relu"),
    _encoder("BigBirdForMaskedLM", attention_type="original_full"),
    _encoder("CamembertForTokenClassification", num_labels=5),
    _encoder("CanineModel", inputs=text(32), num_hash_buckets=64, local_transformer_stride=16),
    _encoder("ConvBertModel", embedding_size=64, conv_kernel_size=3),
    _encoder("Data2VecTextModel"),
    _encoder("DebertaForMaskedLM", _RELATIVE, max_relative_positions=16),
    _encoder("DebertaModel-plain"),
    _encoder("DebertaV2ForSequenceClassification", _RELATIVE, num_labels=3),
    _encoder("DebertaV2Model-convolution", _RELATIVE, share_att_key=True, conv_kernel_size=3, conv_act="gelu"),
    _encoder("DistilBertForMaskedLM", {**_SPAN, "dim": 64, "hidden_dim": 96, "n_layers": 2, "n_heads": 4}),
    _encoder(
        "DistilBertForSequenceClassification", {**_SPAN, "dim": 64, "hidden_dim": 96, "n_layers": 2, "n_heads": 4},
        num_labels=3,
    ),
    _encoder("ElectraForPreTraining", embedding_size=32),
    _encoder("ElectraForSequenceClassification", embedding_size=64, num_labels=3),
    _encoder("ErnieModel", use_task_id=True),
    _encoder("EsmForMaskedLM", mask_token_id=87, position_embedding_type="rotary", emb_layer_norm_before=True),
    _encoder("EsmModel-absolute", mask_token_id=87, token_dropout=True),
    _encoder("EuroBertModel", DECODER, mask_token_id=87),
    _encoder("FNetModel", inputs=lambda generator: {"input_ids": tokens(generator, 1, 12)}),
    _encoder(
        "FunnelForMaskedLM", _SPAN, inputs=text(16), block_sizes=[1, 2, 1], block_repeats=[1, 1, 2],
        num_decoder_layers=1, d_model=64, n_head=4, d_head=16, d_inner=96,
    ),
    _encoder(
        "FunnelBaseModel", _SPAN, inputs=text(16), block_sizes=[1, 1], d_model=64, n_head=4, d_head=16, d_inner=96,
        attention_type="factorized",
    ),
    _encoder("IBertModel"),
    _encoder("LayoutLMModel", _PAGE, text(bbox=_boxes)),
    _encoder(
        "LayoutLMv3Model", _PAGE, text(bbox=_boxes, pixel_values=(1, 3, 16, 16)), coordinate_size=12, shape_size=8,
        input_size=16, patch_size=4, rel_pos_bins=8, max_rel_pos=16, rel_2d_pos_bins=8, max_rel_2d_pos=32,
    ),
    _encoder("LiltModel", _PAGE, text(bbox=_boxes), hidden_size=96, num_attention_heads=6),
    _encoder(
        "LongformerForMaskedLM", attention_window=4,
        inputs=text(16, global_attention_mask=always([1] + [0] * 15)),
    ),
    _encoder("LukeModel", entity_vocab_size=20, entity_emb_size=32, inputs=text(
        entity_ids=always([3, 4]), entity_attention_mask=always([1, 1]),
        entity_position_ids=always([[1, 2] + [-1] * 28, [5, 6] + [-1] * 28]),
    )),
    _encoder("MegatronBertModel"),
    _encoder("MobileBertForMaskedLM", embedding_size=32, intra_bottleneck_size=32, num_feedforward_networks=2),
    _encoder("MPNetForMaskedLM"),
    _encoder("ModernBertForMaskedLM", local_attention=8, num_hidden_layers=4, cls_token_id=1, sep_token_id=2),
    _encoder(
        "ModernBertForSequenceClassification", local_attention=8, cls_token_id=1, sep_token_id=2, num_labels=3,
    ),
    _encoder("MraModel", inputs=text(64), max_position_embeddings=64, block_per_row=1),
    _encoder("NomicBertModel"),
    _encoder("NystromformerForMaskedLM", inputs=text(16), num_landmarks=4, segment_means_seq_len=16,
             conv_kernel_size=5),
    _encoder(
        "ReformerForMaskedLM", _SPAN, inputs=text(16), hidden_size=64, num_attention_heads=4, attention_head_size=16,
        feed_forward_size=96, attn_layers=["local", "lsh"], axial_pos_shape=[4, 8], axial_pos_embds_dim=[24, 40],
        local_attn_chunk_length=4, lsh_attn_chunk_length=4, num_buckets=2, max_position_embeddings=32, hash_seed=0,
    ),
    _encoder("RemBertModel", input_embedding_size=32, output_embedding_size=48),
    _encoder("RobertaForMaskedLM"),
    _encoder("RobertaForQuestionAnswering"),
    _encoder("RobertaPreLayerNormModel"),
    _encoder("RoFormerModel", embedding_size=32, rotary_value=True),
    _encoder("SqueezeBertForMaskedLM", embedding_size=64),
    _encoder("TapasModel", inputs=text(
        token_type_ids=lambda generator: torch.randint(0, 2, (1, 12, 7), generator=generator)
    ), type_vocab_sizes=[3, 4, 4, 2, 4, 4, 4]),
    _encoder("XLMRobertaForTokenClassification", num_labels=5),
    _encoder("XLMRobertaXLModel"),
    _encoder("XLMWithLMHeadModel", {**_SPAN, "emb_dim": 64, "n_layers": 2, "n_heads": 4, "n_langs": 2},
             text(langs=always([0] * 6 + [1] * 6)), pad_index=0, mask_token_id=5),
    _encoder("XLNetLMHeadModel", {**_SPAN, "d_model": 64, "n_layer": 2, "n_head": 4, "d_inner": 96}),
    _encoder("XmodModel", languages=["en", "de"], default_language="en",
             inputs=text(lang_ids=lambda generator: torch.randint(0, 2, (1,), generator=generator))),
    _encoder("YosoModel", inputs=text(16), num_hash=4, hash_code_len=4, use_expectation=True),
]  # fmt: skip
