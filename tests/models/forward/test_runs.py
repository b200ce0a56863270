"""Runs stop where a model calls its blocks, go on with what they are answered, and leave the model as it was."""

from collections import namedtuple

import pytest
import torch
from greenlet import getcurrent
from support.forward import modules_of, stopped_at, whole_model_wanda
from support.models import FAMILIES, inputs_of, prune, tiny, token_windows
from support.zoo import ZOO
from transformers import (
    DebertaV2Config,
    DebertaV2Model,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
)

from optimum_si import SIConfig, SIPruner
from optimum_si.errors import UnsupportedModelError
from optimum_si.models.forward.modes import widened, without_cache
from optimum_si.models.forward.runs import ModelRun, suspending
from optimum_si.models.forward.stops import cast, hidden_of
from optimum_si.models.forward.streams import Stream
from optimum_si.models.stacks import Padding
from optimum_si.models.structure import find_structure


def block_outputs(model, inputs):
    """What each block gives in an ordinary forward pass."""
    found = []
    hooks = [
        module.register_forward_hook(lambda module, args, output: found.append(hidden_of(output)))
        for module in modules_of(model)
    ]
    with torch.no_grad(), without_cache(model):
        model(**inputs)
    for hook in hooks:
        hook.remove()
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_blocks_called_at_their_stops_give_the_outputs_of_a_forward_pass(name):
    model, inputs = tiny(name), inputs_of(name, 3)
    expected, modules = block_outputs(model, inputs), modules_of(model)
    with torch.no_grad(), without_cache(model), suspending(modules):
        stream = Stream(model, find_structure(model).blocks, [inputs])
        for index, module in enumerate(modules):
            assert stream.next == index
            (stop,) = stream.stops(index).values()
            output = stop.call(module)
            assert torch.equal(hidden_of(output), expected[index])
            stream.advance(index, {0: output})
        assert stream.next is None
        (run,) = stream.runs
        assert torch.equal(run.output.logits, model(**inputs).logits)


def test_a_run_that_is_answered_nothing_lets_the_model_run_its_blocks():
    model, inputs = tiny("llama"), inputs_of("llama", 2)
    with suspending(modules_of(model)):
        run = ModelRun(model, inputs, [Padding()] * 2)
        stops = []
        while run.resume() is not None:
            stops.append(run.stop.index)
        assert stops == [0, 1]
    with torch.no_grad():
        assert torch.equal(run.output.logits, model(**inputs).logits)


def test_runs_that_are_closed_undo_what_the_model_entered():
    model = tiny("llama")
    left = []

    class Noting(torch.nn.Module):
        def forward(self, input_ids):
            try:
                return model(input_ids)
            finally:
                left.append(getcurrent())

    with suspending(modules_of(model)):
        stream = Stream(model, find_structure(model).blocks, [inputs_of("llama", 2)])
        run = ModelRun(Noting(), inputs_of("llama", 2), [Padding()] * 2)
        run.resume()
        run.close()
        stream.close()
    assert left == [run] and run.dead and all(run.dead for run in stream.runs)


def test_an_error_in_the_model_reaches_whoever_drives_the_run():
    model = tiny("llama")
    with suspending(modules_of(model)), pytest.raises(IndexError):
        Stream(model, find_structure(model).blocks, [{"input_ids": torch.full((1, 4), 10**6)}])


@pytest.mark.parametrize("name", ["llama", "opt", "bert", "gpt2"])
def test_stops_know_padding(name):
    model = tiny(name)
    mask = (torch.arange(16) < torch.tensor([[16], [9]])).long()
    with stopped_at(model, {"input_ids": token_windows(2), "attention_mask": mask}) as (_, stop):
        assert torch.equal(stop.mask, mask.bool())
        assert stop.num_tokens == 25


def test_a_full_mask_is_no_padding():
    inputs = {"input_ids": token_windows(2), "attention_mask": torch.ones(2, 16, dtype=torch.long)}
    with stopped_at(tiny("llama"), inputs) as (_, stop):
        assert stop.mask is None


@pytest.mark.parametrize("name", FAMILIES)
def test_suspending_leaves_the_model_as_it_was(name):
    model, inputs = tiny(name), inputs_of(name, 2)
    forwards = [module.__dict__.get("forward") for module in modules_of(model)]
    with torch.no_grad():
        before = model(**inputs).logits
    cache = getattr(model.config, "use_cache", None)
    with stopped_at(model, inputs, 1):
        pass
    assert [module.__dict__.get("forward") for module in modules_of(model)] == forwards
    assert getattr(model.config, "use_cache", None) == cache
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, before)


def test_a_stop_is_cast_to_the_dtype_that_the_block_computes_in():
    model = tiny("llama", torch.bfloat16)
    with stopped_at(model, {"input_ids": token_windows(2)}) as (block, stop), torch.no_grad():
        with widened(block.module) as dtype:
            assert dtype == torch.float32
            assert stop.cast(dtype).run(block.module).dtype == torch.float32
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_blocks_that_a_model_skips_stay_dense_and_are_named():
    model = tiny("llama")
    model.config.num_hidden_layers = 1  # transformers calls no more of them
    with pytest.warns(UserWarning, match="7 layers were never called .* model.layers.1.self_attn.q_proj"):
        report = prune(model, induction=None).report
    assert [block.name for block in report.blocks] == ["model.layers.0"]
    assert "model.layers.1.mlp.up_proj" in report.dense


def test_a_model_that_calls_a_block_again_is_refused():
    model = tiny("llama")
    blocks = find_structure(model).blocks
    with torch.no_grad(), suspending([block.module for block in reversed(blocks)]):
        stream = Stream(model, blocks[::-1], [inputs_of("llama", 2)])
        stream.advance(1, {0: stream.stops(1)[0].call(blocks[0].module)})
        with pytest.raises(UnsupportedModelError, match="calls block 'model.layers.1' again, or in another order"):
            _ = stream.next
        stream.close()


def deberta():
    """DeBERTa v2 with a convolution between its first two blocks, as the large ones have it."""
    return DebertaV2Model(
        DebertaV2Config(
            vocab_size=48,
            hidden_size=32,
            num_hidden_layers=3,
            num_attention_heads=4,
            intermediate_size=48,
            conv_kernel_size=3,
            conv_act="gelu",
        )
    )


def qwen3_vl():
    """Qwen3-VL, whose DeepStack adds what early vision blocks see to the language model's hidden states."""
    text = {"vocab_size": 64, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 4, "head_dim": 16}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 2, "rope_parameters": ROPE}
    vision = {"depth": 3, "hidden_size": 32, "intermediate_size": 48, "num_heads": 2, "patch_size": 4}
    more = {"out_hidden_size": 32, "num_position_embeddings": 16, "deepstack_visual_indexes": [0, 1, 2]}
    return Qwen3VLForConditionalGeneration(
        Qwen3VLConfig(
            text_config={**text, **heads},
            vision_config={**vision, **more, "spatial_merge_size": 2, "temporal_patch_size": 2},
            image_token_id=60,
            video_token_id=61,
            vision_start_token_id=62,
            vision_end_token_id=63,
        )
    )


ROPE = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [4, 2, 2], "mrope_interleaved": True}
IMAGE = [62, 60, 60, 60, 60, 63]


def pictures(count):
    """A picture of 4 x 4 patches, which are merged to 4 tokens, with text around it."""
    text = torch.randint(1, 48, (count, 10), generator=torch.Generator().manual_seed(1))
    ids = torch.cat([text[:, :3], torch.tensor(IMAGE).expand(count, -1), text[:, 3:]], dim=1)
    pixels = torch.randn(count, 16, 3 * 2 * 4 * 4, generator=torch.Generator().manual_seed(2))
    return [
        {
            "input_ids": row[None],
            "mm_token_type_ids": (row[None] == 60).int(),
            "pixel_values": image,
            "image_grid_thw": torch.tensor([[1, 4, 4]]),
        }
        for row, image in zip(ids, pixels, strict=True)
    ]


def widely_spread(model):
    """The model in fp64, with weights that are no longer all alike in size."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4) if parameter.ndim > 1 else parameter.add_(0.3 * torch.randn_like(parameter))
    return model.double().eval()


@pytest.mark.parametrize("name", ["llama", "opt", "opt-post-norm", "bert", "gpt2", "gpt-neox"])
def test_masks_are_those_of_a_wanda_that_runs_whole_models(name):
    batches = [{"input_ids": row[None], "attention_mask": torch.ones_like(row[None])} for row in token_windows(6)]
    pruned, reference = (widely_spread(tiny(name)) for _ in range(2))
    whole_model_wanda(reference, batches)
    assert_pruned_alike(pruned, reference, batches)


def test_what_happens_between_blocks_is_seen_by_the_blocks_that_follow():
    torch.manual_seed(0)
    pruned = widely_spread(deberta())
    reference = widely_spread(deberta())
    reference.load_state_dict(pruned.state_dict())
    batches = [{"input_ids": row[None]} for row in token_windows(6)]
    whole_model_wanda(reference, batches)
    assert_pruned_alike(pruned, reference, batches)


def deberta_v2():
    config = DebertaV2Config(
        vocab_size=48, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        relative_attention=True, position_buckets=8, pos_att_type=["p2c", "c2p"], share_att_key=True,
    )  # fmt: skip
    torch.manual_seed(0)
    return widely_spread(DebertaV2Model(config))


def test_a_layer_that_reads_relative_embeddings_too_is_scored_on_both():
    batches = [{"input_ids": row[None]} for row in token_windows(6)]
    pruned, reference = deberta_v2(), deberta_v2()
    whole_model_wanda(reference, batches)
    assert_pruned_alike(pruned, reference, batches)


@pytest.mark.parametrize("recipe", [{}, {"reconstruction": "exact"}], ids=str)
def test_what_all_examples_of_a_batch_share_counts_for_each_of_them(recipe):
    batches = [{"input_ids": row[None]} for row in token_windows(6)]
    weights = []
    for size in (1, 4):
        model = deberta_v2()
        config = SIConfig("wanda", induction=None, calibration={"batch_size": size}, **recipe)
        SIPruner(model).prune(config, batches, progress=False)
        weights.append(model.encoder.layer[0].attention.self.query_proj.weight)
    torch.testing.assert_close(*weights, rtol=1e-6, atol=1e-8)


def test_padding_changes_nothing_where_hidden_states_are_several_streams():
    """Gemma 3n's have the streams in front of the batch."""
    specimen = ZOO["Gemma3nForCausalLM"]
    examples = specimen.examples(4)
    padded = [{name: torch.nn.functional.pad(value, (0, 7)) for name, value in row.items()} for row in examples]
    models = [specimen.build().double() for _ in range(2)]
    for model, data in zip(models, (examples, padded), strict=True):
        config = SIConfig("wanda", induction={"epochs": 1}, calibration={"batch_size": 2})
        SIPruner(model).prune(config, data, progress=False)
    for (name, value), (_, other) in zip(*(model.named_parameters() for model in models), strict=True):
        assert torch.equal(value == 0, other == 0), name


def test_what_deepstack_adds_between_blocks_is_seen_by_the_blocks_that_follow():
    torch.manual_seed(0)
    pruned = widely_spread(qwen3_vl())
    reference = widely_spread(qwen3_vl())
    reference.load_state_dict(pruned.state_dict())
    batches = [{name: values for name, values in batch.items()} for batch in pictures(4)]
    for batch in batches:
        batch["pixel_values"] = batch["pixel_values"].double()
    assert {stack.name for stack in find_structure(pruned).stacks} == {
        "model.visual.blocks",
        "model.language_model.layers",
    }
    whole_model_wanda(reference, batches)
    assert_pruned_alike(pruned, reference, batches)


def assert_pruned_alike(pruned, reference, batches):
    config = SIConfig("wanda", induction=None, calibration={"batch_size": 1})
    with pytest.MonkeyPatch.context() as patch:
        # Batches as they are: examples of several modalities are no matter of this test.
        patch.setattr("optimum_si.calibration.data.prepare_examples", lambda *_: batches)
        patch.setattr("optimum_si.pipeline.run.make_batches", lambda *_: batches)
        patch.setattr("optimum_si.pipeline.run.sorted_by_length", lambda examples, _: examples)
        SIPruner(pruned).prune(config, progress=False)
    expected = dict(reference.named_parameters())
    for name, parameter in pruned.named_parameters():
        assert torch.equal(parameter == 0, expected[name] == 0), name


def test_contexts_that_a_model_enters_around_its_blocks_stay_its_own():
    model, inputs = tiny("llama"), inputs_of("llama", 2)
    own = model.forward

    def forward(*args, **kwargs):
        with torch.autocast("cpu", torch.bfloat16), torch.enable_grad():
            return own(*args, **kwargs)

    model.forward = forward
    with suspending(modules_of(model)), torch.no_grad():
        run = ModelRun(model, inputs, [Padding()] * 2)
        run.resume()
        assert not torch.is_autocast_enabled("cpu") and not torch.is_grad_enabled()
        run.resume()  # the model runs its block itself, in its own context
        assert run.stop.hidden.requires_grad and not torch.is_grad_enabled()
        run.close()
        assert not torch.is_autocast_enabled("cpu") and not torch.is_grad_enabled()


def test_a_blocks_own_hooks_run_once_for_each_call_of_the_model():
    model, calls = tiny("llama"), []
    modules = modules_of(model)
    handles = [module.register_forward_hook(lambda *_: calls.append("after")) for module in modules]
    handles += [module.register_forward_pre_hook(lambda *_: calls.append("before")) for module in modules]
    with stopped_at(model, inputs_of("llama", 2), 1) as (block, stop), torch.no_grad():
        seen = list(calls)
        stop.run(block.module)
        assert calls == seen == ["before", "after", "before"]
    for handle in handles:
        handle.remove()


def test_named_tuples_are_cast_too():
    pair = namedtuple("Pair", "hidden index")(torch.ones(2, dtype=torch.float64), torch.ones(2, dtype=torch.long))
    found = cast(pair, torch.float32)
    assert type(found) is type(pair) and found.hidden.dtype == torch.float32 and found.index.dtype == torch.long
