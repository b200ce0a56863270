"""``weights="sparse"``: packed weights and the kernels that read them, or dense weights from the same files."""

import shutil
import warnings

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from support.models import calibration, prune
from support.onnx_models import genai_tokens
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from optimum_si import CheckpointError, ConfigurationError, ExportError
from optimum_si.onnx import ORTSIModelForCausalLM, export, kernels
from optimum_si.onnx.exporting.sparsify import CSR_MIN, chosen_format, sparsify
from optimum_si.onnx.inspect import check, summary
from optimum_si.onnx.kernels import build as building
from optimum_si.onnx.kernels import library as kernel_library
from optimum_si.onnx.kernels import library_path
from optimum_si.onnx.matrices import Matrix, matrices
from optimum_si.onnx.packed_nodes import DOMAIN, is_sparse, packed_of
from optimum_si.onnx.runtime.densify import densify


pytestmark = pytest.mark.usefixtures("trace_cache")

IDS = torch.arange(9)[None]
BOUNDS = {"fp32": 1e-5, "fp16": 2e-3, "int8": 0.05, "int4": 0.4}


def pruned(**recipe):
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=48, hidden_size=128, intermediate_size=192, num_hidden_layers=1, num_attention_heads=4,
        num_key_value_heads=2,
    )  # fmt: skip
    model = LlamaForCausalLM(config).eval()
    return prune(model, "magnitude", calibration("llama"), induction=None, **recipe).model


@pytest.fixture(scope="module")
def sparse(tmp_path_factory, traced_once):
    """sparse(values, **options): a model in 2:4, and the directory of its export."""
    folder = tmp_path_factory.mktemp("sparse")
    model = pruned(pattern="2:4")

    def made(values="fp32", **options):
        path = folder / "-".join([values, *map(str, options.values())])
        if not path.exists():
            with traced_once():
                export(model, path, values=values, weights="sparse", **options)
        return model, path

    return made


def tokenizer():
    vocabulary = {"<pad>": 0, **{f"w{number}": number for number in range(1, 48)}}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<pad>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>")


def nodes(path):
    return [node for node in onnx.load(str(path / "model.onnx"), load_external_data=False).graph.node]


@pytest.mark.parametrize("values", BOUNDS)
def test_answers_are_those_of_pytorch(sparse, values):
    model, path = sparse(values)
    expected = model(input_ids=IDS).logits.detach()
    answer = ORTSIModelForCausalLM.from_pretrained(path)(input_ids=IDS).logits
    assert float((answer - expected).norm() / expected.norm()) < BOUNDS[values]
    packed = [node for node in nodes(path) if node.domain == DOMAIN]
    # q, k and v in one; o, gate, up and down.
    assert len(packed) >= 4
    kinds = {attribute.s.decode() for node in packed for attribute in node.attribute if attribute.name == "kind"}
    assert kinds == {values}


def test_files_shrink_as_the_format_says(sparse, tmp_path):
    model, path = sparse("fp16")
    export(model, tmp_path / "dense")
    sizes = [(folder / "model.onnx.data").stat().st_size for folder in (path, tmp_path / "dense")]
    assert sizes[0] < 0.45 * sizes[1]


def test_a_bare_session_needs_the_library_and_nothing_else(sparse):
    model, path = sparse()
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library_path()))
    session = onnxruntime.InferenceSession(str(path / "model.onnx"), options)
    feeds = {value.name: zeros(value, 9) for value in session.get_inputs()}
    feeds.update(input_ids=IDS.numpy(), attention_mask=np.ones((1, 9), np.int64))
    if "position_ids" in feeds:
        feeds["position_ids"] = np.arange(9)[None]
    answer = session.run(["logits"], feeds)[0]
    expected = model(input_ids=IDS).logits.detach().numpy()
    np.testing.assert_allclose(answer, expected, rtol=1e-3, atol=1e-4)


def zeros(value, length):
    sizes = {"batch_size": 1, "sequence_length": length, "past_sequence_length": 0, "total_sequence_length": length}
    shape = [sizes.get(size, size) for size in value.shape]
    return np.zeros(shape, np.float32 if "float" in value.type else np.int64)


@pytest.mark.parametrize("values", BOUNDS)
def test_threads_change_nothing(sparse, values):
    _, path = sparse(values)
    answers = []
    for threads in (1, 2, 5):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        answers.append(ORTSIModelForCausalLM.from_pretrained(path, session_options=options)(input_ids=IDS).logits)
    assert torch.equal(answers[0], answers[1]) and torch.equal(answers[0], answers[2])


@pytest.mark.parametrize("registered", [False, True])
def test_options_may_serve_several_models_and_know_the_kernels_already(sparse, registered):
    options = onnxruntime.SessionOptions()
    if registered:
        options.register_custom_ops_library(str(library_path()))
    for values in ("fp32", "fp16"):
        model, path = sparse(values)
        answer = ORTSIModelForCausalLM.from_pretrained(path, session_options=options)(input_ids=IDS).logits
        torch.testing.assert_close(answer, model(input_ids=IDS).logits.detach(), rtol=0, atol=1e-2)


@pytest.fixture
def no_compiler(monkeypatch, tmp_path):
    monkeypatch.setenv(building.COMPILER_VARIABLE, "none")
    monkeypatch.setenv(building.CACHE_VARIABLE, str(tmp_path / "cache"))
    library_path.cache_clear()
    yield
    library_path.cache_clear()


@pytest.fixture
def from_a_wheel(monkeypatch, tmp_path):
    """The library where a wheel would have brought it, and no compiler."""
    built = library_path()
    installed = tmp_path / "lib"
    installed.mkdir()
    for ending in ("", ".sha256"):
        shutil.copy(f"{built}{ending}", installed / f"{building.FILE_NAME}{ending}")
    monkeypatch.setattr(kernel_library, "INSTALLED", installed)
    monkeypatch.setenv(building.COMPILER_VARIABLE, "none")
    library_path.cache_clear()
    yield
    library_path.cache_clear()


@pytest.mark.parametrize("values", ["fp32", "fp16", "int8"])
@pytest.mark.parametrize("packaging", [None, "from_a_wheel", "no_compiler"])
def test_the_same_tokens_however_the_kernels_came(sparse, request, packaging, values):
    model, path = sparse(values)
    expected = ORTSIModelForCausalLM.from_pretrained(path).generate(IDS, max_new_tokens=6, do_sample=False)
    if packaging is not None:
        request.getfixturevalue(packaging)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        runtime = ORTSIModelForCausalLM.from_pretrained(path)
    words = [str(warning.message) for warning in said if "dense weights" in str(warning.message)]
    assert len(words) == (packaging == "no_compiler")
    assert torch.equal(runtime.generate(IDS, max_new_tokens=6, do_sample=False), expected)


@pytest.mark.slow
def test_unstructured_zeros_take_masks_or_columns(tmp_path):
    for sparsity, expected in ((0.5, "bitmask"), (0.9, "csr")):
        model = pruned(sparsity=sparsity)
        export(model, tmp_path / expected, weights="sparse")
        formats = {
            attribute.s.decode()
            for node in nodes(tmp_path / expected)
            for attribute in node.attribute
            if attribute.name == "format"
        }
        assert formats == {expected}
        answer = ORTSIModelForCausalLM.from_pretrained(tmp_path / expected)(input_ids=IDS).logits
        np.testing.assert_allclose(answer, model(input_ids=IDS).logits.detach(), rtol=1e-3, atol=1e-4)


def test_check_reads_packed_matrices(sparse):
    _, path = sparse("fp16")
    found = [matrix for matrix in check(path) if matrix.usable_by == "CPU"]
    assert len(found) >= 4 and {(matrix.stored, matrix.pattern) for matrix in found} == {("fp16 2:4", "2:4")}
    assert f"{len(found)} are stored without their zeros" in summary(check(path))


@pytest.mark.parametrize("values", ["fp32", "fp16", "int8", "int4"])
@pytest.mark.slow
def test_genai_computes_with_them(tmp_path, values):
    model = pruned(pattern="2:4")
    export(model, tmp_path / "out", values=values, weights="sparse", runtime="genai", tokenizer=tokenizer())
    assert any(node.domain == DOMAIN for node in nodes(tmp_path / "out"))
    ours = ORTSIModelForCausalLM.from_pretrained(tmp_path / "out")
    expected = ours.generate(IDS, max_new_tokens=6, min_new_tokens=6, do_sample=False)
    assert genai_tokens(tmp_path / "out", IDS, 15) == expected[0].tolist()


def test_genai_cannot_do_without_kernels(tmp_path, no_compiler):
    with pytest.raises(ExportError, match="needs the kernels.*install g"):
        export(pruned(pattern="2:4"), tmp_path / "out", weights="sparse", runtime="genai", tokenizer=tokenizer())


def test_a_dense_model_has_nothing_to_pack(tmp_path):
    export(pruned(sparsity=0.0), tmp_path / "dense", weights="sparse")
    assert not is_sparse(ir.load(str(tmp_path / "dense" / "model.onnx")))


def test_only_what_was_asked_for_is_packed(sparse, tmp_path):
    model, path = sparse()
    every = {node.input[1] for node in nodes(path) if node.domain == DOMAIN}
    chosen = sorted(name.removesuffix(".values") for name in every)[0]
    export(model, tmp_path / "some", weights="sparse", include=chosen)
    assert {node.input[1] for node in nodes(tmp_path / "some") if node.domain == DOMAIN} == {f"{chosen}.values"}
    export(model, tmp_path / "others", weights="sparse", exclude=[chosen])
    assert {node.input[1] for node in nodes(tmp_path / "others") if node.domain == DOMAIN} == every - {
        f"{chosen}.values"
    }
    export(model, tmp_path / "none", weights="sparse", sparse_min=0.8)
    assert not is_sparse(ir.load(str(tmp_path / "none" / "model.onnx")))


def test_the_rule_of_formats(sparse, tmp_path):
    model, _ = sparse()
    export(model, tmp_path / "dense")
    graph = ir.load(str(tmp_path / "dense" / "model.onnx"))
    chosen = {matrix.name: chosen_format(matrix, "fp32") for matrix in matrices(graph)}
    assert set(chosen.values()) == {"2:4", None} and CSR_MIN > 0.5
    assert all(chosen_format(matrix, "fp32", 0.6) is None for matrix in matrices(graph))


def test_a_pattern_with_few_weights_takes_columns_unless_in_4_bits():
    weight = np.zeros((128, 64), np.float32)
    weight[::8] = 1
    matrix = Matrix("w", "MatMul", weight, "float32")
    assert [chosen_format(matrix, values) for values in ("fp32", "fp16", "int8", "int4")] == ["csr"] * 3 + ["2:4"]


def test_a_library_that_cannot_be_loaded_is_none(sparse, tmp_path, monkeypatch):
    model, path = sparse()
    broken = tmp_path / "kernels.so"
    broken.write_bytes(b"no library")
    monkeypatch.setattr(kernels, "library_path", lambda: broken)
    with pytest.warns(UserWarning, match="computed with dense weights"):
        answer = ORTSIModelForCausalLM.from_pretrained(path)(input_ids=IDS).logits
    torch.testing.assert_close(answer, model(input_ids=IDS).logits.detach(), rtol=0, atol=1e-4)


def test_packed_graphs_can_be_made_dense_again(sparse):
    _, path = sparse("int8")
    graph = ir.load(str(path / "model.onnx"))
    weights = [packed_of(node) for node in graph.graph if node.domain == DOMAIN]
    assert is_sparse(graph) and weights
    densify(graph)
    assert not is_sparse(graph)
    names = [name for name, value in graph.graph.initializers.items() if not value.uses()]
    assert names == []
    assert sparsify(graph, "fp32")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weights": "thin"}, "weights='thin'"),
        ({"weights": "sparse", "device": "cuda"}, "the sparse kernels are for 'cpu'"),
        ({"weights": "sparse", "sparse_min": 1.5}, "sparse_min=1.5"),
        ({"sparse_min": 0.5}, "sparse_min belong to weights='sparse'"),
        ({"include": "*"}, "include belong to weights='sparse'"),
    ],
)
def test_wrong_choices_are_refused_before_any_work(tmp_path, options, message):
    with pytest.raises(ConfigurationError, match=message):
        export(tmp_path / "no-model", tmp_path / "out", **options)


def change(path, name, edit):
    """Edit one packed part of a graph, or an attribute of its first packed node."""
    graph = ir.load(str(path / "model.onnx"))
    node = next(node for node in graph.graph if node.domain == DOMAIN)
    edit(graph, node)
    copy = path / "changed"
    copy.mkdir()
    ir.save(graph, str(copy / "model.onnx"), external_data="model.onnx.data")
    return copy / "model.onnx"


def opened(path):
    from optimum_si.onnx.runtime.session import open_session

    return open_session(path, None, verify=False)


def set_part(place, edit):
    def change_part(graph, node):
        value = node.inputs[place]
        array = edit(value.const_value.numpy().copy())
        value.const_value = ir.tensor(array, name=value.name)
        value.shape = ir.Shape(array.shape)

    return change_part


def set_attribute(name, value):
    def change_attribute(graph, node):
        node.attributes[name] = ir.AttrInt64(name, value) if isinstance(value, int) else ir.AttrString(name, value)

    return change_attribute


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (set_attribute("version", 2), "version 2 of the format"),
        (set_attribute("format", "3:4"), "format is '3:4'"),
        (set_attribute("N", 64), "another size"),
        (set_part(1, lambda part: part[:-8]), "values have another size"),
        (set_part(2, lambda part: part | 1), "pattern does not hold"),
    ],
)
def test_damaged_parts_are_found_at_load(sparse, tmp_path, edit, message):
    _, path = sparse()
    shutil.copytree(path, tmp_path / "copy")
    with pytest.raises(CheckpointError, match=message):
        opened(change(tmp_path / "copy", "model.onnx", edit))


@pytest.mark.filterwarnings("ignore:.*computed with dense weights")
@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (set_attribute("version", 2), "version 2 of the format"),
        (set_part(1, lambda part: part[:-8]), "values have"),
        (set_part(2, lambda part: part | 1), "pattern does not hold"),
    ],
)
def test_damaged_parts_are_found_without_kernels_too(sparse, tmp_path, no_compiler, edit, message):
    _, path = sparse()
    shutil.copytree(path, tmp_path / "copy")
    with pytest.raises(CheckpointError, match=message):
        opened(change(tmp_path / "copy", "model.onnx", edit))
