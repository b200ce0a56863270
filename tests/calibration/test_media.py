"""Images and sounds reach a model through its own processor, whatever holds them."""

import io
import warnings
import wave

import datasets
import numpy as np
import pytest
import torch
from support import media
from support.models import same_bytes, tiny
from torch.utils.data import DataLoader, Dataset

from optimum_si import CalibrationConfig, CalibrationError, CheckpointError, SIConfig, SIPruner
from optimum_si.calibration import Reader, make_batches, prepare_examples, sorted_by_length, with_decoder_inputs
from optimum_si.calibration.media import media_kind, read_sound, resampled
from optimum_si.models.forward.runs import suspending
from optimum_si.models.forward.streams import Stream
from optimum_si.models.structure import find_structure
from optimum_si.pipeline.heard_silence import without_unused_masks


CONFIG = SIConfig("wanda", sparsity=0.5, induction=None, calibration={"num_samples": 4, "batch_size": 2})


def examples(dataset, subject, tokenizer=None, **config):
    model, processor = subject
    config = CalibrationConfig(**{"num_samples": 8, **config})
    return prepare_examples(dataset, config, tokenizer, None, Reader.of(model, lambda: processor))


def prune(subject, dataset, config=CONFIG, **options):
    model, processor = subject
    pruner = SIPruner(model, processor=processor, **options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pruner.prune(config, dataset=dataset, progress=False)
    return pruner


def png(image):
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()


class Pictures(Dataset):
    def __init__(self, pictures):
        self.pictures = pictures

    def __len__(self):
        return len(self.pictures)

    def __getitem__(self, index):
        return self.pictures[index % len(self.pictures)], 3


@pytest.fixture(scope="module")
def pictures():
    return media.images(5)


def test_every_way_to_hold_the_same_images_gives_the_same_examples(tmp_path, pictures):
    subject = media.vit()
    expected = [subject[1](images=image, return_tensors="pt")["pixel_values"] for image in pictures]
    for index, image in enumerate(pictures):
        image.save(tmp_path / f"{index}.PNG", format="png")
    encoded = [{"bytes": png(image), "path": None} for image in pictures]
    dataset = datasets.Dataset.from_dict({"image": pictures, "label": [0, 1, 2, 3, 4]})
    raw = dataset.cast_column("image", datasets.Image(decode=False))
    raw.to_parquet(tmp_path / "rows.parquet")
    for given in (
        pictures,
        [{"image": image, "label": 1} for image in pictures],
        [{"picture": image, "caption": "unread"} for image in pictures],
        encoded,
        dataset,
        raw,
        dataset.to_iterable_dataset(),
        Pictures(pictures),
        DataLoader(Pictures(pictures), batch_size=2, collate_fn=lambda rows: [image for image, _ in rows]),
        [tmp_path / f"{index}.PNG" for index in range(5)],
        f"{tmp_path}/*.PNG",
        f"{tmp_path}/rows.parquet",
    ):
        found = examples(given, subject)
        assert all(set(example) == {"pixel_values"} for example in found)
        remaining = [example["pixel_values"] for example in found]
        assert len(remaining) == 5
        for value in expected:  # drawn, so in another order
            assert any(torch.equal(value, other) for other in remaining)


def test_of_images_as_many_as_asked_for_are_drawn_by_the_seed(pictures):
    subject = media.vit()
    few, again = (examples(pictures, subject, num_samples=2, seed=3) for _ in range(2))
    more = examples(pictures, subject, num_samples=4, seed=3)
    assert len(few) == 2 and len(more) == 4
    for one, same, other in zip(few, again, more[:2], strict=True):
        assert torch.equal(one["pixel_values"], same["pixel_values"])
        assert torch.equal(one["pixel_values"], other["pixel_values"])
    others = [examples(pictures, subject, num_samples=2, seed=seed)[0]["pixel_values"] for seed in range(6)]
    assert not all(torch.equal(others[0], other) for other in others)


def test_a_folder_of_images_leaves_its_texts_alone(tmp_path, pictures):
    (tmp_path / "cat").mkdir()
    for index, image in enumerate(pictures):
        image.save(tmp_path / "cat" / f"{index}.jpg")
    (tmp_path / "README.md").write_text("about cats")
    assert len(examples(str(tmp_path), media.vit())) == 5


def test_a_loader_of_tensors_gives_its_rows(pictures):
    tensors = torch.rand(5, 3, 16, 16)
    loader = DataLoader(torch.utils.data.TensorDataset(tensors, torch.arange(5)), batch_size=2)
    found = examples(loader, media.vit())
    assert torch.equal(torch.cat([example["pixel_values"] for example in found]), tensors)
    assert len(examples(loader, media.vit(), num_samples=3)) == 3
    assert torch.equal(examples(tensors, media.vit())[4]["pixel_values"], tensors[4:])


def test_pruning_on_images_is_pruning_on_what_the_processor_makes(pictures):
    model, processor = media.vit()
    by_hand = [{"pixel_values": processor(images=image, return_tensors="pt")["pixel_values"]} for image in pictures]
    config = SIConfig("wanda", sparsity=0.5, induction=None, calibration={"num_samples": 5})
    assert same_bytes(prune(media.vit(), pictures, config).model, prune(media.vit(), by_hand, config).model)


def test_the_processor_beside_a_model_is_found_when_it_is_needed(tmp_path, pictures):
    model, processor = media.vit()
    model.save_pretrained(tmp_path / "model")
    config = SIConfig("wanda", sparsity=0.5, induction=None, calibration={"num_samples": 2})
    with pytest.raises(
        CalibrationError, match="holds images .*ViTForImageClassification reads 'pixel_values'.*processor="
    ):
        SIPruner.from_pretrained(tmp_path / "model").prune(config, dataset=pictures, progress=False)
    processor.save_pretrained(tmp_path / "model")
    pruner = SIPruner.from_pretrained(tmp_path / "model")
    pruner.prune(config, dataset=pictures, progress=False)
    assert pruner.processor.size == processor.size
    elsewhere = SIPruner(media.vit()[0], processor=tmp_path / "model")
    elsewhere.prune(config, dataset=pictures, save_dir=tmp_path / "out", progress=False)
    assert (tmp_path / "out" / "preprocessor_config.json").is_file()
    with pytest.raises(CheckpointError, match="no processor can be loaded"):
        _ = SIPruner(media.vit()[0], processor=tmp_path).processor
    (tmp_path / "model" / "preprocessor_config.json").write_text("nonsense")
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        _ = SIPruner.from_pretrained(tmp_path / "model").processor


def test_data_of_another_kind_names_what_was_given_and_what_is_read(pictures, texts, lm_tokenizer):
    with pytest.raises(CalibrationError, match=r"holds text, and ViT\w+ reads 'pixel_values' \(images\)"):
        examples(texts, media.vit(), lm_tokenizer)
    with pytest.raises(CalibrationError, match=r"holds 'input_ids', and ViT\w+ reads 'pixel_values'"):
        examples(torch.ones(3, 4).long(), media.vit())
    llama = tiny("llama"), None
    for given in (pictures, [{"image": image, "label": 1} for image in pictures]):
        with pytest.raises(CalibrationError, match=r"images .column 'image'., and LlamaForCausalLM reads 'input_ids"):
            examples(given, llama, lm_tokenizer)
    with pytest.raises(CalibrationError, match="holds 'pixel_values', and LlamaForCausalLM reads 'input_ids'"):
        examples([{"pixel_values": torch.rand(3, 4, 4)}], llama, lm_tokenizer)
    with_text = [{"image": image, "text": text} for image, text in zip(pictures, texts, strict=False)]
    assert "input_ids" in examples(with_text, llama, lm_tokenizer, num_samples=1, sequence_length=8)[0]


def test_what_a_model_cannot_read_is_said_in_its_words_with_the_shapes(pictures):
    wrong = [{"pixel_values": torch.rand(3, 20, 16)}] * 4
    with pytest.raises(CalibrationError, match=r"cannot read .* .pixel_values \[1, 3, 20, 16\].*size"):
        prune(media.vit(), wrong)


def test_a_processor_that_lacks_a_package_names_it(tmp_path, monkeypatch):
    from optimum_si.checkpoint import processor

    class Lacking:
        @classmethod
        def from_pretrained(cls, *_, **__):
            raise ImportError("VideoProcessor requires the Torchvision library")

    media.vit()[1].save_pretrained(tmp_path)
    monkeypatch.setattr(processor, "AutoProcessor", Lacking)
    with pytest.raises(CheckpointError, match="requires the Torchvision library"):
        _ = SIPruner(media.vit()[0], processor=tmp_path).processor


def test_two_towers_get_images_with_their_captions(pictures, bert_tokenizer):
    rows = [{"image": image, "caption": f"d{index}w1"} for index, image in enumerate(pictures)]
    found = examples(rows, media.clip(), bert_tokenizer, sequence_length=8)
    assert all({"input_ids", "attention_mask", "pixel_values"} <= set(example) for example in found)
    with pytest.raises(CalibrationError, match="holds images alone, and CLIPModel reads text with them"):
        examples(pictures, media.clip(), bert_tokenizer)


def test_what_is_no_image_is_an_error_that_names_the_row(tmp_path, pictures):
    (tmp_path / "a.png").write_bytes(b"nonsense")
    with pytest.raises(CalibrationError, match="Row 0 .*an image cannot be read"):
        examples(str(tmp_path), media.vit())
    with pytest.raises(CalibrationError, match="Row"):
        examples([pictures[0], "text"], media.vit())


def test_sounds_become_what_the_feature_extractor_makes():
    subject = media.wav2vec2(masked=True)
    given = media.sounds([900, 700])
    rows = [{"audio": sound, "text": "unread"} for sound in given]
    for held in (given, rows):
        found = sorted(examples(held, subject), key=lambda example: -example["input_values"].shape[1])
        for example, sound in zip(found, given, strict=True):
            made = subject[1](sound["array"], sampling_rate=media.RATE, return_tensors="pt")
            assert set(example) == {"input_values", "attention_mask"}
            assert torch.allclose(example["input_values"], made["input_values"], atol=1e-6)


def test_padding_of_sounds_changes_no_mask():
    given = [{"audio": sound} for sound in media.sounds([900, 1400, 700, 1100])]
    for masked in (True, False):
        one_by_one, together = (
            prune(
                media.wav2vec2(masked),
                given,
                SIConfig("wanda", sparsity=0.5, induction=None, calibration={"batch_size": size}),
            ).model
            for size in (1, 4)
        )
        different = sum(
            int(((a == 0) != (b == 0)).sum())
            for a, b in zip(one_by_one.parameters(), together.parameters(), strict=True)
        )
        assert different <= 2  # ties


@pytest.mark.parametrize("subject", [media.whisper, media.speech2text])
def test_speech_models_are_pruned_on_sounds_with_decoder_inputs_of_their_own(subject):
    model, processor = subject()
    pruner = prune((model, processor), [{"audio": sound} for sound in media.sounds([9000, 6000, 12000])])
    for stack in (model.model.encoder, model.model.decoder):
        weights = [layer.weight for layer in stack.layers.modules() if isinstance(layer, torch.nn.Linear)]
        assert weights and all(int((weight == 0).sum()) == weight.numel() // 2 for weight in weights)
    assert pruner.report.sparsity == pytest.approx(0.5)


def test_a_sound_at_another_rate_is_resampled():
    time = np.arange(8000) / 8000
    tone = np.sin(2 * np.pi * 100 * time).astype(np.float32)
    expected = np.sin(2 * np.pi * 100 * np.arange(16000) / 16000)
    assert np.abs(resampled(tone, 8000, 16000) - expected).max() < 1e-3
    assert np.abs(resampled(expected.astype(np.float32), 16000, 8000) - tone).max() < 1e-3
    (example,) = examples([{"array": tone, "sampling_rate": 8000}], media.wav2vec2(masked=False))
    assert example["input_values"].shape == (1, 16000)


def test_wav_files_and_several_channels_are_read():
    file = io.BytesIO()
    samples = (np.random.default_rng(0).standard_normal((50, 2)) * 3000).astype("<i2")
    with wave.open(file, "wb") as opened:
        opened.setnchannels(2), opened.setsampwidth(2), opened.setframerate(8000)
        opened.writeframes(samples.tobytes())
    read, rate = read_sound({"bytes": file.getvalue(), "path": "a.wav"})
    assert rate == 8000 and np.allclose(read, samples.mean(axis=1) / 2**15)
    assert np.allclose(read_sound({"array": samples.T, "sampling_rate": 8000})[0], samples.mean(axis=1))
    assert media_kind({"bytes": file.getvalue(), "path": None}) == "sounds"
    with pytest.raises(CalibrationError, match="pip install torchcodec"):
        read_sound({"bytes": b"fLaC nonsense", "path": None})


def test_sounds_that_datasets_cannot_decode_name_the_package():
    class Undecodable:
        column_names = ["audio"]

        def __len__(self):
            return 3

        def __getitem__(self, index):
            raise ImportError("To support decoding audio data, please install 'torchcodec'.")

    with pytest.raises(CalibrationError, match="Row 0 .*install 'torchcodec'"):
        examples(Undecodable(), media.wav2vec2(masked=True))


def test_rows_without_an_image_are_text_alone(tmp_path, pictures):
    subject = media.llava(tmp_path)
    rows = [{"image": image if place else None, "text": "what is it"} for place, image in enumerate(pictures)][::-1]
    found = examples(rows, subject)
    assert sorted("pixel_values" in example for example in found) == [False, *[True] * (len(found) - 1)]
    with pytest.raises(CalibrationError, match=r"Row \d of the calibration data: there is no image"):
        examples([{"image": row["image"]} for row in rows], media.vit())


def test_conversations_with_images_need_a_template(tmp_path, pictures):
    chat = [{"role": "user", "content": [{"type": "image"}]}]
    model, processor = media.llava(tmp_path)
    processor.chat_template = None
    with pytest.raises(CalibrationError, match="has no chat template"):
        examples([{"images": [image], "messages": chat} for image in pictures], (model, processor))


def test_images_with_text_reach_both_parts_of_a_vision_language_model(tmp_path, pictures):
    template = (
        "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>{% else %}"
        "{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    chat = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "what is it"}]}]
    for rows, has_template in (
        ([{"image": image, "text": "what is it"} for image in pictures], False),
        (pictures, False),
        (pictures, True),
        ([{"images": [image], "messages": chat} for image in pictures], True),
    ):
        model, processor = media.llava(tmp_path)
        processor.chat_template = template if has_template else None
        (example, *_) = found = examples(rows, (model, processor))
        assert len(found) == 5 and (example["input_ids"] == model.config.image_token_id).sum() == 16
        prune((model, processor), rows)
        for part in (model.model.vision_tower, model.model.language_model):
            weights = [layer.weight for layer in part.modules() if isinstance(layer, torch.nn.Linear)]
            assert sum(int((weight == 0).sum()) for weight in weights) == sum(map(torch.numel, weights)) // 2


@pytest.mark.parametrize("recipe", [{}, {"induction": {"epochs": 1}, "recovery": {"num_samples": 0}}])
def test_patches_of_several_images_are_pruned_on(recipe):
    model, rows = media.qwen2vl(6)
    config = SIConfig("wanda", sparsity=0.5, **{"induction": None, **recipe})
    prune((model, None), rows, config)
    for layers in (model.model.visual.blocks, model.model.language_model.layers):
        weights = [layer.weight for layer in layers.modules() if isinstance(layer, torch.nn.Linear)]
        assert sum(int((weight == 0).sum()) for weight in weights) == sum(map(torch.numel, weights)) // 2


def test_silence_behind_a_sound_is_no_token():
    short, long = media.sounds([4000, 16000])
    for subject, axis in ((media.whisper(), 2), (media.speech2text(), 1)):
        model, processor = subject
        found = examples([short, long], subject)
        (batch,) = make_batches(sorted_by_length(with_decoder_inputs(found, model, 4), 0), 2)
        assert batch["attention_mask"].shape == (2, batch["input_features"].shape[axis])
        blocks = find_structure(model).blocks
        with torch.no_grad(), suspending([block.module for block in blocks]):
            stream = Stream(model, blocks, [batch])
            of_encoder = stream.runs[0].stop
            of_decoder = advance_to(stream, blocks, "decoder")
            states = of_decoder.other_states
            stream.close()
        real = [int(frames) for frames in of_encoder.mask.sum(dim=1)]
        assert real[1] == states.shape[1] and abs(real[0] / real[1] - 0.25) < 0.03
        assert torch.equal(of_decoder.mask_of(states), of_encoder.mask)
        assert of_encoder.num_tokens == sum(real)


@pytest.mark.parametrize("subject", [media.whisper, media.speech2text])
def test_silence_counts_where_the_model_hears_it(subject):
    model, processor = subject()
    found = with_decoder_inputs(examples(media.sounds([4000, 6000]), (model, processor)), model, 4)
    kept = without_unused_masks(found, model)
    assert all("attention_mask" in example for example in found)
    assert {"attention_mask" in example for example in kept} == {subject is media.speech2text}


def test_silence_that_a_model_leaves_out_by_its_mask_keeps_the_mask():
    model, processor = media.whisper()
    found = with_decoder_inputs(examples(media.sounds([4000, 6000]), (model, processor)), model, 4)
    model.model._mask_input_features = lambda features, attention_mask: features * attention_mask.unsqueeze(1)
    assert all("attention_mask" in example for example in without_unused_masks(found, model))


def advance_to(stream, blocks, stack):
    """The stop at the first block of a stack."""
    while True:
        index = stream.next
        (stop,) = [run.stop for run in stream.runs]
        if stack in blocks[index].name:
            return stop
        stream.advance(index, {0: stop.call(blocks[index].module)})
