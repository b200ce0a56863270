"""Code that comes with a model is not run unless it is asked for, and nobody is asked on the terminal."""

import json
import shutil
from pathlib import Path

import pytest
from support.models import save_with_tokenizer, tiny

from optimum_si import SIError, SIPruner, evaluate
from optimum_si.checkpoint.load import load_model, load_tokenizer


CODE = "from pathlib import Path\nPath({marker!r}).write_text('ran')\n"
TEXT = "some text that a tokenizer learns from, and more of it"


@pytest.fixture
def asked(monkeypatch):
    """Questions on the terminal, each of which is answered with yes."""
    questions = []

    def answer(question=""):
        questions.append(question)
        return "y"

    monkeypatch.setattr("builtins.input", answer)
    return questions


@pytest.fixture
def hostile(tmp_path):
    """A checkpoint whose config, tokenizer and processor name code, and the file that this code would write."""
    folder, marker = tmp_path / "model", tmp_path / "marker"
    save_with_tokenizer(tiny("llama"), folder, TEXT)
    (folder / "evil.py").write_text(CODE.format(marker=str(marker)) + "class Evil: pass\n")
    for name, entries in (
        ("config.json", {"auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}}),
        ("tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["evil.Evil", None]}, "tokenizer_class": "Evil"}),
    ):
        values = json.loads((folder / name).read_text())
        (folder / name).write_text(json.dumps({**values, **entries}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"auto_map": {"AutoProcessor": "evil.Evil"}}))
    return folder, marker


def unknown(folder):
    """An architecture that transformers does not have."""
    values = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**values, "model_type": "evil", "architectures": ["Evil"]}))


@pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
@pytest.mark.parametrize("what", ["load_model", "load_tokenizer", "SIPruner", "evaluate", "export"])
def test_code_of_a_model_is_not_run(hostile, asked, what, known, tmp_path):
    folder, marker = hostile
    if not known:
        unknown(folder)
    data = tmp_path / "text.txt"
    data.write_text(TEXT * 40)
    run = {
        "load_model": lambda: load_model(folder),
        "load_tokenizer": lambda: load_tokenizer(folder, required=True),
        "SIPruner": lambda: SIPruner.from_pretrained(folder),
        "evaluate": lambda: evaluate(folder, dataset=str(data), sequence_length=8, max_windows=1),
        "export": lambda: export_of(folder, tmp_path / "onnx"),
    }[what]
    try:
        run()
    except SIError as error:
        assert str(error)
    assert not asked and not marker.exists()


def export_of(folder, output):
    from optimum_si.onnx import export

    return export(folder, output)


def test_code_beside_an_export_is_not_run(tmp_path, asked, trace_cache):
    from optimum_si import ORTSIModel, ORTSIModelForCausalLM

    export_of_folder = tmp_path / "onnx"
    save_with_tokenizer(tiny("llama"), tmp_path / "model", TEXT)
    export_of(tmp_path / "model", export_of_folder)
    marker = tmp_path / "marker"
    (export_of_folder / "evil.py").write_text(CODE.format(marker=str(marker)) + "class Evil: pass\n")
    # And a library as a wheel or the cache would have it.
    shutil.copy(export_of_folder / "model.onnx", export_of_folder / "optimum_si_kernels.so")
    file = export_of_folder / "config.json"
    for changes in ({}, {"model_type": "evil"}):
        values = {**json.loads(file.read_text()), "auto_map": {"AutoConfig": "evil.Evil"}, **changes}
        file.write_text(json.dumps(values))
        for model_class in (ORTSIModel, ORTSIModelForCausalLM):
            try:
                model_class.from_pretrained(export_of_folder)
            except SIError as error:
                assert str(error)
        assert not asked and not marker.exists()


def test_every_process_that_is_started_as_a_module_leaves_the_working_directory_alone():
    """Python's -P: without it a module planted there would come before the one that is installed."""
    import optimum_si

    for file in Path(optimum_si.__file__).parent.rglob("*.py"):
        text = file.read_text(encoding="utf-8")
        assert text.count('sys.executable, "-') == text.count('sys.executable, "-P", "-'), file
