"""An exported causal model gives the tokens and the logits of its PyTorch original."""

import inspect
import re
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import torch
from support.models import VOCABULARY
from support.onnx_models import CAUSAL, causal, prompts
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from transformers import DynamicCache, GenerationMixin, PreTrainedTokenizerFast, TextStreamer, pipeline
from transformers.generation import candidate_generator

from optimum_si import CheckpointError, ORTSIModel, ORTSIModelForCausalLM, perplexity
from optimum_si.onnx.runtime.cache import SessionCache
from optimum_si.onnx.runtime.causal import CACHE


@pytest.fixture(params=[name for name in CAUSAL if name != "llama-shallow"])
def pair(request, exported):
    return causal(request.param), ORTSIModelForCausalLM.from_pretrained(exported(request.param))


@pytest.mark.parametrize(("batch", "tokens"), [(3, 9), (1, 5), (2, 40), (1, 1), (5, 3)])
def test_logits_of_every_position_are_those_of_pytorch(pair, batch, tokens):
    model, exported = pair
    inputs = prompts(batch, tokens)
    positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    with torch.no_grad():
        expected = model(**inputs, position_ids=positions).logits
    real = inputs["attention_mask"].bool()
    torch.testing.assert_close(exported(**inputs).logits[real], expected[real], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("batch", "tokens", "new"), [(3, 9, 20), (1, 5, 100), (2, 40, 12), (1, 1, 5)])
def test_greedy_tokens_are_those_of_pytorch(pair, batch, tokens, new):
    model, exported = pair
    options = {**prompts(batch, tokens), "max_new_tokens": new, "do_sample": False}
    assert torch.equal(exported.generate(**options), model.generate(**options))


def test_beams_are_those_of_pytorch(pair):
    model, exported = pair
    options = {**prompts(2, 7), "max_new_tokens": 12, "num_beams": 3, "do_sample": False}
    assert torch.equal(exported.generate(**options), model.generate(**options))


def test_samples_are_those_of_pytorch_with_the_same_seed(pair):
    model, exported = pair
    options = {**prompts(2, 7), "max_new_tokens": 8, "do_sample": True, "top_k": 5}
    torch.manual_seed(3)
    expected = model.generate(**options)
    torch.manual_seed(3)
    assert torch.equal(exported.generate(**options), expected)


@pytest.mark.parametrize("pad", [0, 7])
def test_rows_end_where_those_of_pytorch_end(exported, pad):
    model, exported_model = causal("llama"), ORTSIModelForCausalLM.from_pretrained(exported("llama"))
    options = {**prompts(3, 9), "max_new_tokens": 30, "do_sample": False, "pad_token_id": pad}
    free = model.generate(**options)
    ends = [int(free[0, 14]), int(free[1, 20])]
    expected = model.generate(**options, eos_token_id=ends)
    assert torch.equal(exported_model.generate(**options, eos_token_id=ends), expected)
    assert not torch.equal(expected, free[:, : expected.shape[1]])


def test_everything_that_generate_offers_is_still_there(exported):
    """Options that the short loop does not know go the long way, with the same tokens as PyTorch."""
    model, exported_model = causal("llama"), ORTSIModelForCausalLM.from_pretrained(exported("llama"))
    options = {**prompts(2, 9), "max_new_tokens": 10, "do_sample": False}
    for extra in ({"repetition_penalty": 1.3}, {"no_repeat_ngram_size": 2}, {"min_new_tokens": 5, "eos_token_id": 3}):
        assert torch.equal(exported_model.generate(**options, **extra), model.generate(**options, **extra))
    found = exported_model.generate(**options, return_dict_in_generate=True, output_scores=True)
    assert torch.equal(found.sequences, exported_model.generate(**options)) and len(found.scores) == 10


def test_tokens_looked_up_in_the_prompt_are_checked_and_taken_back(exported):
    model, exported_model = causal("llama"), ORTSIModelForCausalLM.from_pretrained(exported("llama"))
    ids = torch.tensor([[1, 2, 3, 4, 1, 2, 3, 4, 1, 2, 3]])
    options = {"input_ids": ids, "max_new_tokens": 16, "do_sample": False}
    expected = model.generate(**options)
    assert torch.equal(exported_model.generate(**options, prompt_lookup_num_tokens=3), expected)
    assert torch.equal(exported_model.generate(**options, assistant_model=model), expected)


def test_without_a_cache_in_generate_the_tokens_are_the_same(exported):
    model = ORTSIModelForCausalLM.from_pretrained(exported("llama"))
    options = {**prompts(2, 7), "max_new_tokens": 6, "do_sample": False}
    assert torch.equal(model.generate(**options, use_cache=False), model.generate(**options))


def test_a_cache_goes_on_where_it_stopped(exported):
    model = ORTSIModelForCausalLM.from_pretrained(exported("llama"))
    inputs = prompts(2, 9)
    whole = model(**inputs).logits
    positions = (inputs["attention_mask"].cumsum(-1) - 1).clamp_min(0)
    first = model(inputs["input_ids"][:, :5], inputs["attention_mask"][:, :5], positions[:, :5])
    cache = first[CACHE]
    assert cache.get_seq_length() == 5
    second = model(inputs["input_ids"][:, 5:], inputs["attention_mask"], **{CACHE: cache})
    torch.testing.assert_close(second.logits, whole[:, 5:], rtol=1e-4, atol=1e-5)
    assert cache.get_seq_length() == 9
    cache.crop(5)
    again = model.forward(inputs["input_ids"][:, 5:], inputs["attention_mask"], **{CACHE: cache})
    torch.testing.assert_close(again.logits, second.logits)
    assert CACHE not in model(**inputs, use_cache=False)


def test_rows_of_a_cache_are_selected_and_repeated(exported):
    model = ORTSIModelForCausalLM.from_pretrained(exported("llama"))
    cache = model(**prompts(3, 4))[CACHE]
    before = [value.numpy().copy() for value in cache.values]
    cache.batch_select_indices(torch.tensor([2, 0]))
    cache.batch_repeat_interleave(2)
    for value, old in zip(cache.values, before, strict=True):
        assert np.array_equal(value.numpy(), old[[2, 2, 0, 0]])
    assert len(cache) == 4 and SessionCache().get_seq_length() == 0


def test_perplexity_is_that_of_pytorch(exported):
    windows = torch.randint(1, VOCABULARY, (6, 24), generator=torch.Generator().manual_seed(5))
    expected = perplexity(causal("llama"), texts=windows, progress=False)
    model = ORTSIModelForCausalLM.from_pretrained(exported("llama"))
    assert perplexity(model, texts=windows, progress=False) == pytest.approx(expected, rel=1e-4)


@pytest.fixture
def tokenizer():
    """A token for each letter."""
    vocabulary = {
        "<pad>": 0,
        **{letter: number for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz", start=1)},
    }
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    letters.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    return PreTrainedTokenizerFast(tokenizer_object=letters, pad_token="<pad>", unk_token="<pad>")


def test_it_works_in_a_pipeline_and_with_a_streamer(exported, tokenizer, capsys):
    model = ORTSIModelForCausalLM.from_pretrained(exported("llama"))
    generator = pipeline("text-generation", model=model, tokenizer=tokenizer)
    (answer,) = generator("abc", max_new_tokens=4, do_sample=False)
    assert answer["generated_text"].startswith("abc")
    inputs = tokenizer("abc", return_tensors="pt")
    model.generate(**inputs, max_new_tokens=4, do_sample=False, streamer=TextStreamer(tokenizer))
    assert capsys.readouterr().out.strip()


def test_moving_to_the_cpu_keeps_the_session_and_devices_are_told(exported):
    model = ORTSIModelForCausalLM.from_pretrained(exported("llama"))
    session = model.session
    assert model.to("cpu").to(torch.float32).eval() is model and model.session is session
    assert model.device.type == "cpu" and model.providers == ["CPUExecutionProvider"]
    assert model.dtype == torch.float32


def test_the_hooks_of_transformers_that_it_relies_on_are_there():
    named = re.findall(r"``(\w+)``", inspect.getdoc(ORTSIModelForCausalLM).split("these hooks of it")[1])
    assert len(named) == 9 and "_sample" in named
    source = inspect.getsource(inspect.getmodule(GenerationMixin))
    for name in named:
        assert re.search(rf"\b{name}\b", source), f"transformers has no {name} any more: see the class's docstring"
        assert name.endswith("_tensor") or hasattr(ORTSIModelForCausalLM, name)


def test_what_transformers_asks_of_a_cache_is_answered():
    source = inspect.getsource(inspect.getmodule(GenerationMixin)) + inspect.getsource(candidate_generator)
    asked = set(re.findall(rf"""(?:\b(?:cache|{CACHE})|\["(?:cache|{CACHE})"\])\.(\w+)""", source))
    # Of caches of encoder-decoders, of compiled and quantized ones, and of a model's own multi-token heads.
    others = {
        "self_attention_cache",
        "layers",
        "early_initialization",
        "num_hidden_layers",
        "to",
        "is_initialized",
        "set_previous_accepted_tokens",
    }
    unanswered = sorted(name for name in asked - others if not hasattr(SessionCache(), name))
    assert asked and not unanswered


def test_an_encoder_is_refused_with_the_right_class(exported):
    with pytest.raises(CheckpointError, match="use ORTSIModel"):
        ORTSIModelForCausalLM.from_pretrained(exported("bert"))


def test_the_graph_runs_on_onnx_runtime_alone(exported):
    """In a process that can import neither optimum-si nor torch."""
    model, directory = causal("llama"), exported("llama")
    inputs = prompts(2, 6, padded=False)
    code = f"""
        import sys
        sys.modules["torch"] = sys.modules["transformers"] = sys.modules["optimum_si"] = None
        import numpy as np, onnxruntime
        session = onnxruntime.InferenceSession({str(directory / "model.onnx")!r})
        ids = np.array({inputs["input_ids"].tolist()})
        feeds = {{"input_ids": ids, "attention_mask": np.ones_like(ids)}}
        feeds["position_ids"] = np.arange(ids.shape[1])[None].repeat(len(ids), 0)
        for value in session.get_inputs():
            if value.name.startswith("past_key_values"):
                feeds[value.name] = np.zeros((len(ids), value.shape[1], 0, value.shape[3]), np.float32)
        print(session.run(["logits"], feeds)[0][:, -1].argmax(-1).tolist())
    """
    result = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, check=True)
    with torch.no_grad():
        assert result.stdout.strip() == str(model(**inputs).logits[:, -1].argmax(-1).tolist())


def test_a_plain_model_also_opens_a_causal_graph(exported):
    model = ORTSIModel.from_pretrained(exported("llama"))
    with pytest.raises(ValueError, match="past_key_values.0.key"):
        model(input_ids=torch.ones(1, 3, dtype=torch.int64))


def test_wrong_inputs_are_refused(exported):
    model = ORTSIModelForCausalLM.from_pretrained(exported("llama"))
    ids = torch.tensor([[1, 2, 3]])
    for wrong in ({"input_ids": ids.float()}, {"input_ids": ids[0]}, {"input_ids": ids.numpy()}, {}):
        with pytest.raises(ValueError, match="expected an integer tensor"):
            model(**wrong)
    embeds = torch.ones(1, 3, 32)
    for wrong in ({"labels": ids}, {"inputs_embeds": embeds}, {"output_hidden_states": True}, {"ids": 1}):
        with pytest.raises(ValueError, match=rf"{next(iter(wrong))} is given, and the exported graph has no such"):
            model(ids, **wrong)
    assert model(ids, output_attentions=False, labels=None, token_type_ids=torch.zeros_like(ids)).logits.shape[1] == 3
    for given in (DynamicCache(), ()):
        with pytest.raises(ValueError, match=rf"{CACHE} is a \w+: give what an earlier output"):
            model(ids, **{CACHE: given})
    for wrong in (ids - 2, ids + VOCABULARY):
        with pytest.raises(ValueError, match=r"token ids reach from -?\d+ to \d+, and the model has ids from 0 to 47"):
            model.generate(wrong, max_new_tokens=2)
    with pytest.raises(ValueError, match="ONNX Runtime cannot compute with input_ids .* more tokens than"):
        ORTSIModelForCausalLM.from_pretrained(exported("opt"))(torch.ones(1, 300, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"attention_mask has shape \[1, 1\]: expected \[1, 3\]"):
        model(ids, torch.ones(1, 1))
    with pytest.raises(ValueError, match="of the same shape"):
        model.generate(ids, attention_mask=torch.zeros(1, 1), max_new_tokens=2, do_sample=False)


def test_positions_that_a_user_gives_are_used(exported):
    model, exported_model = causal("opt"), ORTSIModelForCausalLM.from_pretrained(exported("opt"))
    options = {**prompts(1, 5), "position_ids": torch.arange(5)[None] + 40, "max_new_tokens": 8, "do_sample": False}
    assert torch.equal(exported_model.generate(**options), model.generate(**options))
