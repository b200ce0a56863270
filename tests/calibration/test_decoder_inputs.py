"""What a decoder reads: given, made of labels or targets, or written by the model."""

import datasets
import pytest
import torch
from support import media
from support.models import prune, token_windows
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BartModel,
    BertConfig,
    BertLMHeadModel,
    MarianConfig,
    MarianMTModel,
    T5Config,
    T5ForConditionalGeneration,
    T5Model,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTModel,
)

from optimum_si import CalibrationConfig, CalibrationError, ConfigurationError, SIConfig, SIPruner
from optimum_si.calibration import Reader, prepare_examples, with_decoder_inputs
from optimum_si.pipeline.checks import check_vocabulary


SIZES = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48}
HEADS = {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "vocab_size": 400, "max_position_embeddings": 40}


def t5(kind=T5ForConditionalGeneration, **options):
    torch.manual_seed(0)
    sizes = {"vocab_size": 400, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
    return kind(T5Config(**sizes, decoder_start_token_id=0, **options))


def bart(kind=BartForConditionalGeneration):
    torch.manual_seed(0)
    return kind(BartConfig(**SIZES, **HEADS, decoder_start_token_id=2, pad_token_id=1, bos_token_id=0, eos_token_id=2))


def marian():
    torch.manual_seed(0)
    return MarianMTModel(MarianConfig(**SIZES, **HEADS, decoder_start_token_id=58, pad_token_id=58, eos_token_id=0))


def captioner():
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 48}
    decoder = BertLMHeadModel(BertConfig(**sizes, vocab_size=50, is_decoder=True, add_cross_attention=True))
    model = VisionEncoderDecoderModel(
        encoder=ViTModel(ViTConfig(**sizes, image_size=16, patch_size=4)), decoder=decoder
    )
    model.config.decoder_start_token_id, model.config.pad_token_id, model.config.eos_token_id = 2, 0, 3
    return model


def tokens(count=5, length=6):
    return [
        {"input_ids": ids[None], "attention_mask": torch.ones_like(ids[None])} for ids in token_windows(count, length)
    ]


@pytest.mark.parametrize("make", [t5, bart, marian])
def test_a_model_writes_what_its_decoder_reads(make):
    model = make().train()
    # Of two lengths, so that one is padded: what is written is what is written alone.
    examples = [*tokens(3), *tokens(2, 4)]
    found = with_decoder_inputs(examples, model, 12, model.config.pad_token_id)
    assert model.training
    model.eval()
    for example, before in zip(found, examples, strict=True):
        ids = example["decoder_input_ids"]
        alone = model.generate(**before, max_new_tokens=12, do_sample=False)
        assert ids[0, 0] == model.config.decoder_start_token_id and 1 <= ids.shape[1] <= 13
        assert torch.equal(alone[:, : ids.shape[1]], ids)
        rest = alone[0, ids.shape[1] :]
        assert not len(rest) or rest[0] == model.config.eos_token_id
        assert example["decoder_attention_mask"].shape == ids.shape
    assert all("decoder_input_ids" not in example for example in examples)


def test_positions_of_a_decoder_bound_what_is_written():
    (example,) = with_decoder_inputs(tokens(1), bart(), 1000)
    assert example["decoder_input_ids"].shape[1] <= 40


def test_labels_become_decoder_inputs_as_in_training():
    labels = torch.tensor([[7, 8, 2, -100]])
    for model, start in ((t5(), 0), (bart(), 2)):
        (example,) = with_decoder_inputs([{**tokens(1)[0], "labels": labels}], model, 8)
        assert example["decoder_input_ids"].tolist() == [[start, 7, 8, 2]]
        assert example["decoder_attention_mask"].tolist() == [[1, 1, 1, 1]] and "labels" not in example
        assert torch.equal(example["decoder_input_ids"], model.prepare_decoder_input_ids_from_labels(labels))
    speech = {"input_features": torch.rand(1, 16, 100), "labels": torch.tensor([[7, -100, -100]])}
    (example,) = with_decoder_inputs([speech], media.whisper()[0], 8)  # which has no function for it
    assert example["decoder_input_ids"].tolist() == [[3, 7, 1]]
    assert example["decoder_attention_mask"].tolist() == [[1, 1, 0]]


def test_decoder_inputs_that_are_given_stay(recwarn):
    given = {**tokens(1)[0], "decoder_input_ids": torch.tensor([[0, 5]]), "labels": torch.tensor([[5, 6]])}
    (example,) = with_decoder_inputs([given], t5(), 8)
    assert torch.equal(example["decoder_input_ids"], given["decoder_input_ids"]) and "labels" not in example


def test_a_model_that_writes_nothing_reads_its_input_again():
    for model, start in ((bart(BartModel), 2), (t5(T5Model), 0)):
        examples = tokens(2)
        for example, before in zip(with_decoder_inputs(examples, model, 8), examples, strict=True):
            assert example["decoder_input_ids"].tolist() == [[start, *before["input_ids"][0, :-1].tolist()]]
    images = [{"pixel_values": torch.rand(1, 3, 16, 16)}]
    assert with_decoder_inputs(images, captioner(), 6)[0]["decoder_input_ids"].shape[1] <= 7


def test_examples_of_other_models_are_left_alone():
    assert with_decoder_inputs(tokens(1), captioner().decoder, 8)[0].keys() == {"input_ids", "attention_mask"}


def test_a_model_that_fails_to_write_says_what_to_give():
    with pytest.raises(CalibrationError, match="cannot write what its decoder reads.*'labels'.*target_column"):
        with_decoder_inputs([{"input_ids": torch.tensor([[9999]])}], t5(), 8)


@pytest.mark.parametrize("hold", ["rows", "dataset", "file", "tokens"])
def test_a_column_of_targets_becomes_decoder_inputs(tmp_path, texts, lm_tokenizer, hold):
    rows = [{"text": text, "summary": text[:20]} for text in texts]
    data = rows
    if hold == "dataset":
        data = datasets.Dataset.from_list(rows)
    elif hold == "file":
        datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
        data = str(tmp_path / "a.parquet")
    elif hold == "tokens":
        data = [{"input_ids": lm_tokenizer(row["text"])["input_ids"][:12], "summary": row["summary"]} for row in rows]
    config = CalibrationConfig(num_samples=3, sequence_length=12, target_column="summary")
    found = with_decoder_inputs(prepare_examples(data, config, lm_tokenizer), t5(), 12)
    assert len(found) == 3
    for example, row in zip(found, rows, strict=False):
        target = lm_tokenizer(row["summary"])["input_ids"][:12]
        assert example["input_ids"][0].tolist() == lm_tokenizer(row["text"])["input_ids"][:12]
        assert example["decoder_input_ids"][0].tolist() == [0, *target[:-1]]


def test_targets_that_cannot_be_used_are_errors(texts, lm_tokenizer):
    rows = [{"text": text, "summary": 3} for text in texts]
    config = CalibrationConfig(num_samples=3, sequence_length=12, target_column="summary")
    with pytest.raises(CalibrationError, match="row 0 holds a int"):
        prepare_examples(rows, config, lm_tokenizer)
    with pytest.raises(CalibrationError, match="has no column 'summary'"):
        prepare_examples([{"text": "a"}], config, lm_tokenizer)
    with pytest.raises(CalibrationError, match="no columns, so none named 'summary'"):
        prepare_examples(texts, config, lm_tokenizer)
    with pytest.raises(CalibrationError, match="decoder of an encoder-decoder, and BertLMHeadModel is none"):
        prepare_examples(rows, config, lm_tokenizer, None, Reader.of(captioner().decoder))
    with pytest.raises(ConfigurationError, match="target_column"):
        CalibrationConfig(target_column=3)


def test_transcripts_become_what_a_speech_model_writes(lm_tokenizer):
    model, processor = media.whisper()
    rows = [{"audio": sound, "text": f"d{index}"} for index, sound in enumerate(media.sounds([9000] * 3))]
    config = CalibrationConfig(num_samples=3, target_column="text")
    found = prepare_examples(rows, config, lm_tokenizer, None, Reader.of(model, lambda: processor))
    assert sorted(map(str, (example["labels"][0].tolist() for example in found))) == sorted(
        str(lm_tokenizer(row["text"])["input_ids"]) for row in rows
    )


def test_ids_that_a_decoder_does_not_embed_are_an_error():
    for ids, message in ((400, "token 400, but the model embeds 400"), (-100, "token -100.*decoder_input_ids")):
        given = [{**tokens(1)[0], "decoder_input_ids": torch.tensor([[0, ids]])}]
        with pytest.raises(CalibrationError, match=message):
            check_vocabulary(given, t5())
    captions = [{"pixel_values": torch.rand(1, 3, 16, 16), "decoder_input_ids": torch.tensor([[2, 50]])}]
    with pytest.raises(CalibrationError, match="the model embeds 50"):
        check_vocabulary(captions, captioner())


def test_text_prunes_both_stacks_of_an_encoder_decoder(texts, lm_tokenizer):
    model = t5()
    config = SIConfig("wanda", sparsity=0.5, induction=None, calibration={"num_samples": 4, "sequence_length": 16})
    SIPruner(model, lm_tokenizer).prune(config, dataset=texts, progress=False)
    for stack in (model.encoder, model.decoder):
        weights = [layer.weight for layer in stack.block.modules() if isinstance(layer, torch.nn.Linear)]
        assert sum(int((weight == 0).sum()) for weight in weights) == sum(weight.numel() for weight in weights) // 2


def test_a_recovery_of_an_encoder_decoder_reads_what_the_dense_one_wrote():
    pruner = prune(t5(), "wanda", tokens(16), sparsity=0.5, induction=None, recovery={"num_samples": 0})
    assert pruner.report.recovery.windows == 16
