"""Perplexity by the published protocol, on tiny models that are made here."""

import math

import datasets
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    GPT2Config,
    GPT2LMHeadModel,
    GPT2Model,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    T5Config,
    T5ForConditionalGeneration,
)

from optimum_si import CalibrationError, ConfigurationError, NumericalError, UnsupportedModelError, perplexity
from optimum_si.evaluation.perplexity import evaluation_texts, max_evaluation_windows


VOCABULARY = 64
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
TEXTS = [" ".join(f"w{(7 * number + document) % 50}" for number in range(45)) for document in range(3)]


@pytest.fixture
def model():
    torch.manual_seed(0)
    config = LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=2, max_position_embeddings=32, **SIZES)
    model = LlamaForCausalLM(config)
    with torch.no_grad():  # far from uniform, so that every token counts
        model.lm_head.weight.mul_(50)
    return model


@pytest.fixture(scope="module")
def tokenizer():
    """Words w0 ... w49, a token of their own for empty lines, and <s> at the start of a text."""
    vocabulary = {"<s>": 0, "<unk>": 1, "\n\n": 2, **{f"w{number}": 3 + number for number in range(50)}}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.Split("\n\n", "isolated")]
    )
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", unk_token="<unk>")


@pytest.fixture(scope="module")
def windows():
    return torch.randint(0, VOCABULARY, (5, 12), generator=torch.Generator().manual_seed(0))


def by_hand(model, windows):
    """The definition: exp of the mean of -log p(token | those before it in its window)."""
    losses = []
    for window in windows:
        with torch.no_grad():
            log_probabilities = model(input_ids=window[None]).logits[0].double().log_softmax(-1)
        losses += [-log_probabilities[place, window[place + 1]] for place in range(len(window) - 1)]
    return torch.stack(losses).mean().exp().item()


def test_perplexity_is_what_its_definition_says(model, windows):
    assert perplexity(model, texts=windows) == pytest.approx(by_hand(model, windows), rel=1e-5)


def test_a_model_that_knows_nothing_has_the_perplexity_of_its_vocabulary(model, windows):
    torch.nn.init.zeros_(model.lm_head.weight)
    assert perplexity(model, texts=windows) == pytest.approx(VOCABULARY, rel=1e-6)


def test_documents_are_joined_tokenized_once_and_cut_with_the_tail_dropped(model, tokenizer):
    ids = tokenizer("\n\n".join(TEXTS))["input_ids"]
    assert ids.count(0) == 1 and ids.count(2) == 2 and len(ids) % 20
    expected = by_hand(model, torch.tensor(ids[: len(ids) // 20 * 20]).view(-1, 20))
    assert perplexity(model, tokenizer, TEXTS, sequence_length=20) == pytest.approx(expected, rel=1e-5)
    assert perplexity(model, tokenizer, "\n\n".join(TEXTS), sequence_length=20) == pytest.approx(expected, rel=1e-5)
    column = datasets.Dataset.from_dict({"text": TEXTS})["text"]
    assert perplexity(model, tokenizer, column, sequence_length=20) == pytest.approx(expected, rel=1e-5)


def test_windows_are_by_default_as_long_as_the_model_accepts(model, tokenizer):
    assert perplexity(model, tokenizer, TEXTS) == perplexity(model, tokenizer, TEXTS, sequence_length=32)
    with pytest.raises(CalibrationError, match="sequence_length=33 is longer than the 32 tokens"):
        perplexity(model, tokenizer, TEXTS, sequence_length=33)


@pytest.mark.parametrize("batch_size", [1, 2, 3, 100])
def test_batch_size_does_not_matter(model, windows, batch_size):
    assert perplexity(model, texts=windows, batch_size=batch_size) == pytest.approx(
        perplexity(model, texts=windows), rel=1e-5
    )


def test_windows_of_any_holder_and_of_different_lengths_are_used_as_they_are(model, windows):
    expected = perplexity(model, texts=windows)
    assert perplexity(model, texts=list(windows)) == perplexity(model, texts=windows.tolist()) == expected
    uneven = [windows[0], windows[1, :5], windows[2, :2]]
    assert perplexity(model, texts=uneven) == pytest.approx(by_hand(model, uneven), rel=1e-5)


def test_max_windows_uses_the_first_ones(model, windows):
    assert perplexity(model, texts=windows, max_windows=2) == perplexity(model, texts=windows[:2])
    assert perplexity(model, texts=windows, max_windows=100) == perplexity(model, texts=windows)


def test_losses_are_taken_in_float32(model, windows):
    model.bfloat16()
    assert perplexity(model, texts=windows) == pytest.approx(by_hand(model, windows), rel=1e-5)


def test_every_module_keeps_its_mode_and_no_gradients_are_built(model, windows):
    model.train()
    model.model.layers[0].eval()
    modes = [module.training for module in model.modules()]
    seen = []
    hook = model.lm_head.register_forward_hook(
        lambda module, inputs, output: seen.append((module.training, output.requires_grad))
    )
    perplexity(model, texts=windows)
    hook.remove()
    assert set(seen) == {(False, False)}
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())


def test_dropout_is_off(windows):
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCABULARY, n_positions=16, n_embd=16, n_layer=1, n_head=2)).train()
    assert perplexity(model, texts=windows) == perplexity(model, texts=windows)


def test_a_model_that_caches_tensors_stays_trainable_afterwards(model, windows):
    cache = {}

    def scaled(module, inputs, output):
        return output * cache.setdefault("scale", torch.full((VOCABULARY,), 0.5))

    model.lm_head.register_forward_hook(scaled)
    perplexity(model, texts=windows)
    model(input_ids=windows, labels=windows).loss.backward()


def test_mode_is_restored_after_an_error(model, windows):
    model.train()
    with torch.no_grad():
        model.lm_head.weight[0, 0] = math.nan
    with pytest.raises(NumericalError, match="LlamaForCausalLM is NaN or infinite"):
        perplexity(model, texts=windows)
    assert model.training


@pytest.mark.parametrize(
    "model_class, config",
    [
        (GPT2Model, GPT2Config(vocab_size=VOCABULARY, n_positions=16, n_embd=16, n_layer=1, n_head=2)),
        (BertForMaskedLM, BertConfig(vocab_size=VOCABULARY, **SIZES)),
        (
            T5ForConditionalGeneration,
            T5Config(vocab_size=VOCABULARY, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2),
        ),
    ],
)
def test_a_model_that_predicts_no_next_tokens_is_an_error_that_says_so(model_class, config, windows):
    with pytest.raises(UnsupportedModelError, match=f"{model_class.__name__} predicts no next tokens"):
        perplexity(model_class(config), texts=windows)


def test_a_model_without_logits_is_an_error_that_says_so(model, windows, monkeypatch):
    monkeypatch.setattr(LlamaForCausalLM, "forward", lambda self, **inputs: self.model(**inputs))
    with pytest.raises(UnsupportedModelError, match="gives no logits"):
        perplexity(model, texts=windows)


def test_less_than_one_window_is_an_error_with_both_token_counts(model, tokenizer):
    with pytest.raises(CalibrationError, match="3 tokens and one window needs 32"):
        perplexity(model, tokenizer, "w1 w2")


@pytest.mark.parametrize("texts", [None, "", [], [[5, 6], [6]], [{"pixel_values": torch.ones(3, 2, 2)}]])
def test_nothing_to_predict_is_an_error(model, tokenizer, texts):
    with pytest.raises(CalibrationError, match="nothing to evaluate|predicts no token"):
        perplexity(model, tokenizer, texts)


def test_texts_without_a_tokenizer_are_an_error(model):
    with pytest.raises(CalibrationError, match="no tokenizer"):
        perplexity(model, texts=TEXTS)


def test_windows_longer_than_the_model_accepts_are_an_error(model):
    with pytest.raises(CalibrationError, match="33 tokens and the model accepts at most 32"):
        perplexity(model, texts=torch.ones(1, 33, dtype=torch.long))


@pytest.mark.parametrize("option", [{"batch_size": 0}, {"max_windows": 0}, {"sequence_length": 1}])
def test_numbers_out_of_range_are_errors(model, tokenizer, option):
    with pytest.raises(ConfigurationError, match=f"{next(iter(option))}="):
        perplexity(model, tokenizer, TEXTS, **option)


def test_progress_can_be_silent(model, windows, capfd):
    perplexity(model, texts=windows, progress=False)
    assert capfd.readouterr() == ("", "")
    perplexity(model, texts=windows)
    assert "perplexity" in capfd.readouterr().err


def test_texts_of_a_dataset_can_be_evaluated(tmp_path):
    (tmp_path / "a.txt").write_text("some text")
    assert evaluation_texts(str(tmp_path / "a.txt")) == ["some text"]
    assert evaluation_texts(TEXTS) == TEXTS


def test_only_c4_has_a_published_number_of_windows():
    assert [max_evaluation_windows(dataset) for dataset in ("c4", "wikitext2", "a.txt", TEXTS)] == [
        256,
        None,
        None,
        None,
    ]
