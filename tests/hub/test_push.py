"""Pushing against a Hub on the loopback interface: what arrives, what reads it back, and what goes wrong."""

import logging
import re
import shutil
import traceback

import huggingface_hub.constants
import pytest
import torch
from huggingface_hub import ModelCard
from support.models import calibration, prune, tiny
from support.onnx_models import causal
from transformers import AutoModelForCausalLM

from optimum_si import ConfigurationError, ORTSIModelForCausalLM, PublishError, SIConfig, SIPruner
from optimum_si.errors import PictureError
from optimum_si.hub import errors as hub_errors
from optimum_si.hub import push
from optimum_si.hub.push import push_folder
from optimum_si.hub.results import Result, save_results


RECIPE = {"pattern": "2:4", "induction": None}
REPOSITORY = "me/sparse-llama"


@pytest.fixture
def pruner():
    return prune(causal("llama"), "wanda", calibration("llama"), **RECIPE)


@pytest.fixture
def hub(local_hub, monkeypatch):
    """Weights travel apart from the commit, by the protocol that needs no service beside the Hub."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(hub_errors, "WAITS", (0, 0))
    local_hub.lfs = True
    return local_hub


def same_weights(first, second):
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(name == other and torch.equal(value, found) for (name, value), (other, found) in pairs)


def test_a_pushed_model_is_read_back_bit_by_bit(hub, pruner):
    commit = pruner.push_to_hub(REPOSITORY, token="hf_secret")
    assert commit.commit_url.startswith(f"{hub.url}/{REPOSITORY}/commit/")
    files = hub.repositories[REPOSITORY]
    assert {"model.safetensors", "config.json", "si_config.json", "si_report.json", "README.md"} <= set(files)
    assert same_weights(AutoModelForCausalLM.from_pretrained(REPOSITORY), pruner.model)
    assert SIConfig.from_pretrained(REPOSITORY).to_dict() == pruner.config.to_dict()
    assert sum(request.endswith("/commit/main") for request in hub.requests) == 1
    card = ModelCard(files["README.md"].decode())
    card.validate()
    assert f'AutoModelForCausalLM.from_pretrained("{REPOSITORY}")' in card.text


def test_pictures_go_with_the_card(hub, pruner, monkeypatch, caplog):
    pruner.push_to_hub(REPOSITORY)
    files = hub.repositories[REPOSITORY]
    pictures = re.findall(r"!\[.+?\]\((.+?)\)", files["README.md"].decode())
    assert len(pictures) >= 2 and all(files[name].startswith(b"\x89PNG") for name in pictures)

    def missing(*_):
        raise PictureError("pictures need matplotlib")

    monkeypatch.setattr(push, "draw", missing)
    pruner.push_to_hub("me/other")
    assert "the card has no pictures: pictures need matplotlib" in caplog.text
    assert not any(name.endswith(".png") for name in hub.repositories["me/other"])


@pytest.mark.slow
def test_the_code_of_the_card_runs(hub, pruner):
    pruner.push_to_hub(REPOSITORY, with_onnx=True)
    loading, tuning, running = re.findall(
        r"```python\n(.+?)```", hub.repositories[REPOSITORY]["README.md"].decode(), re.S
    )
    for block in (loading, running):
        names: dict = {}
        exec(block, names)
        assert names["model"].config.sparsity_config["pattern"] == "2:4"
    names = {}
    exec(tuning, names)
    model, sparse = names["model"], names["sparse"]
    before = [weight.detach().clone() for weight in sparse]
    ids = torch.tensor([[1, 2, 3, 4]])
    model(input_ids=ids, labels=ids).loss.backward()
    names["optimizer"].step()
    assert len(sparse) == 14
    for old, new in zip(before, sparse, strict=True):
        assert torch.equal(old == 0, new == 0) and not torch.equal(old, new)


def test_an_export_in_a_subfolder_gives_the_same_tokens(hub, pruner):
    pruner.push_to_hub(REPOSITORY, with_onnx=True)
    exported = ORTSIModelForCausalLM.from_pretrained(REPOSITORY, subfolder="onnx")
    ids = torch.tensor([[1, 2, 3, 4]])
    options = {"max_new_tokens": 10, "do_sample": False}
    assert torch.equal(exported.generate(ids, **options), pruner.model.generate(ids, **options))
    assert "onnx" in ModelCard(hub.repositories[REPOSITORY]["README.md"].decode()).data.tags


def test_a_second_push_sends_what_changed_and_removes_what_is_gone(hub, pruner, tmp_path):
    pruner.push_to_hub(REPOSITORY)
    hub.repositories[REPOSITORY]["model-00001-of-00002.safetensors"] = b"a shard of an earlier push"
    own = ("notes.txt", "lora/adapter_model.safetensors", "report/notes.pdf", "si_notes.md")
    hub.repositories[REPOSITORY] |= dict.fromkeys(own, b"somebody's own")
    weights = hub.repositories[REPOSITORY]["model.safetensors"]
    prune(causal("llama"), "magnitude", calibration("llama"), **RECIPE).push_to_hub(REPOSITORY)
    files = hub.repositories[REPOSITORY]
    assert files["model.safetensors"] != weights and "with Magnitude" in files["README.md"].decode()
    assert "model-00001-of-00002.safetensors" not in files
    assert all(files[name] == b"somebody's own" for name in own)


@pytest.mark.parametrize("failure", [("POST .*/commit/", 0), ("POST .*/commit/", 503), ("PUT /blobs", 0)])
def test_a_connection_that_drops_is_tried_again(hub, pruner, failure):
    hub.failures = [failure]
    pruner.push_to_hub(REPOSITORY)
    assert not hub.failures
    assert same_weights(AutoModelForCausalLM.from_pretrained(REPOSITORY), pruner.model)
    assert sum(request.startswith("PUT") for request in hub.requests) == (2 if "PUT" in failure[0] else 1)


def test_what_has_arrived_is_not_sent_again_by_the_next_push(hub, pruner, tmp_path):
    pruner.save_pretrained(tmp_path / "out")
    hub.failures = [("POST .*/commit/", 503)] * 30
    with pytest.raises(PublishError, match="the Hub cannot take 'me/sparse-llama' now .503.*: it resumes"):
        push_folder(tmp_path / "out", REPOSITORY)
    assert "model.safetensors" not in hub.repositories[REPOSITORY]
    hub.failures.clear()
    push_folder(tmp_path / "out", REPOSITORY)
    assert sum(request.startswith("PUT") for request in hub.requests) == 1
    assert same_weights(AutoModelForCausalLM.from_pretrained(REPOSITORY), pruner.model)


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (("POST .*/commit/", 0), "connection to the Hub was lost .* are not sent twice"),
        (("PUT /blobs", 0), "connection to the Hub was lost .* are not sent twice"),
        (("PUT /blobs", 500), "cannot take .* it resumes"),
        (("PUT /blobs", 403), "no right to write to"),
        (("GET /api/models/", 503), "cannot take .* it resumes"),
    ],
)
@pytest.mark.slow
def test_what_fails_for_good_is_explained(hub, pruner, tmp_path, failure, message, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    pruner.save_pretrained(tmp_path / "out")
    hub.failures = [failure] * 60
    with pytest.raises(PublishError, match=message):
        push_folder(tmp_path / "out", REPOSITORY)


@pytest.mark.parametrize("status", [403, 500])
def test_an_edited_card_that_cannot_be_read_is_not_replaced(hub, pruner, status, monkeypatch):
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", lambda seconds: None)
    pruner.push_to_hub(REPOSITORY)
    hub.repositories[REPOSITORY]["README.md"] = b"precious words"
    hub.failures = [("(HEAD|GET) .*/resolve/.*README.md", status)] * 60
    with pytest.raises(PublishError):
        pruner.push_to_hub(REPOSITORY)
    assert hub.repositories[REPOSITORY]["README.md"] == b"precious words"


@pytest.mark.parametrize("token", ["", "hf_secret\nmore", "hf_sécret"])
def test_tokens_that_no_header_can_carry_are_refused_without_telling_them(hub, pruner, token):
    with pytest.raises(PublishError, match="empty or holds characters") as told:
        pruner.push_to_hub(REPOSITORY, token=token)
    assert "cret" not in "".join(traceback.format_exception(told.value)).replace("hf_secret.py", "")
    pruner.push_to_hub(REPOSITORY, token="hf_fine\n")


@pytest.mark.slow
def test_an_export_is_made_anew_with_new_weights(hub, pruner):
    pruner.push_to_hub(REPOSITORY, with_onnx=True)
    before = hub.repositories[REPOSITORY]["onnx/model.onnx.data"]
    hub.repositories[REPOSITORY]["onnx/model_old.onnx"] = b"stale"
    other = prune(causal("llama"), "magnitude", calibration("llama"), **RECIPE)
    other.push_to_hub(REPOSITORY)
    files = hub.repositories[REPOSITORY]
    assert files["onnx/model.onnx.data"] != before and "onnx/model_old.onnx" not in files


def test_measured_results_and_an_edited_card_come_from_where_the_model_was_saved(hub, pruner, tmp_path):
    pruner.save_pretrained(tmp_path / "out")
    save_results(tmp_path / "out", [Result("wikitext2", "perplexity", 30.0, dense=20.0)])
    pruner.push_to_hub(REPOSITORY)
    assert "| wikitext2 | perplexity | 20 | 30 |" in hub.repositories[REPOSITORY]["README.md"].decode()
    (tmp_path / "out" / "README.md").write_text("---\nlicense: mit\n---\nmine")
    pruner.push_to_hub(REPOSITORY)
    assert hub.repositories[REPOSITORY]["README.md"].endswith(b"mine")


def test_a_card_that_is_no_text_is_kept_by_saving_and_refused_by_pushing(hub, pruner, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "README.md").write_bytes(b"mine \xff")
    (tmp_path / "out" / "si_report.json").write_text("an earlier one")
    pruner.save_pretrained(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "README.md").read_bytes() == b"mine \xff"
    with pytest.raises(PublishError, match="README.md' is no UTF-8 text"):
        push_folder(tmp_path / "out", REPOSITORY)


def test_exports_and_folders_without_weights_are_no_models(hub, pruner, tmp_path):
    pruner.save_pretrained(tmp_path / "out")
    (tmp_path / "out" / "model.safetensors").unlink()
    with pytest.raises(PublishError, match="holds no weights"):
        push_folder(tmp_path / "out", REPOSITORY)


def test_a_branch_and_a_pull_request(hub, pruner):
    pruner.push_to_hub(REPOSITORY, revision="v2", commit_message="second")
    assert not hub.repositories[REPOSITORY] and "model.safetensors" in hub.branches[REPOSITORY, "v2"]
    commit = pruner.push_to_hub(REPOSITORY, create_pr=True)
    assert commit.pr_url and not hub.repositories[REPOSITORY]


def test_wrong_tokens_missing_rights_and_taken_names_are_explained_and_no_token_is_told(hub, pruner, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    hub.token = "hf_right"
    with pytest.raises(
        PublishError, match="does not accept the token for 'me/sparse-llama', or there is none"
    ) as told:
        pruner.push_to_hub(REPOSITORY, token="hf_secret_wrong")
    hub.token = None
    hub.repositories[REPOSITORY] = {}
    hub.read_only.add(REPOSITORY)
    with pytest.raises(PublishError, match="no right to write to 'me/sparse-llama'"):
        pruner.push_to_hub(REPOSITORY, token="hf_secret_reader")
    hub.read_only.clear()
    hub.repositories[REPOSITORY] = {"pytorch_model.bin": b"of somebody", "config.json": b"{}"}
    with pytest.raises(PublishError, match="the name is taken: me/sparse-llama holds a model .*pytorch_model.bin"):
        pruner.push_to_hub(REPOSITORY, token="hf_secret_reader")
    printed = capfd.readouterr()
    assert "hf_secret" not in caplog.text + printed.out + printed.err + str(told.value)


def test_a_repository_that_changed_meanwhile_is_left_alone(hub, pruner, monkeypatch):
    pruner.push_to_hub(REPOSITORY)
    prepared = push.files_in

    def somebody_commits(directory):
        hub.repositories[REPOSITORY]["new.txt"] = b"by somebody"
        return prepared(directory)

    monkeypatch.setattr(push, "files_in", somebody_commits)
    other = prune(causal("llama"), "magnitude", calibration("llama"), **RECIPE)
    with pytest.raises(PublishError, match="changed while this push was under way, and nothing was committed"):
        other.push_to_hub(REPOSITORY)
    assert "with Wanda" in hub.repositories[REPOSITORY]["README.md"].decode()


def test_cards_that_were_edited_are_kept(hub, pruner, tmp_path, caplog):
    pruner.push_to_hub(REPOSITORY)
    files = hub.repositories[REPOSITORY]
    files["README.md"] += b"\nedited on the Hub"
    pruner.push_to_hub(REPOSITORY)
    assert files["README.md"].endswith(b"edited on the Hub") and "was edited and is kept" in caplog.text
    pruner.save_pretrained(tmp_path / "out")
    (tmp_path / "out" / "README.md").write_text("---\nlicense: mit\n---\nedited here")
    push_folder(tmp_path / "out", REPOSITORY)
    assert files["README.md"].endswith(b"edited here")
    files["README.md"] = b"---\nlicense: mit\n---\n"
    (tmp_path / "out" / "README.md").unlink()
    pruner.push_to_hub(REPOSITORY)
    assert b"pruned to 2:4" in files["README.md"]


def test_broken_metadata_here_or_there_is_reported_and_nothing_is_replaced(hub, pruner, tmp_path):
    hub.repositories[REPOSITORY] = {"README.md": b"---\nlicense: [mit\n---\n"}
    with pytest.raises(PublishError, match="card of me/sparse-llama on the Hub has broken metadata: .* not replaced"):
        pruner.push_to_hub(REPOSITORY)
    assert list(hub.repositories[REPOSITORY]) == ["README.md"]
    pruner.save_pretrained(tmp_path / "out")
    (tmp_path / "out" / "README.md").write_text("---\nlicense: [mit\n---\n")
    with pytest.raises(PublishError, match="metadata of '.*README.md' is broken: .* Mend it"):
        push_folder(tmp_path / "out", "me/other")
    assert "me/other" not in hub.repositories


@pytest.mark.slow
def test_paths_of_this_machine_are_not_published(hub, tmp_path):
    tiny("opt").save_pretrained(tmp_path / "private" / "opt")
    pruner = SIPruner.from_pretrained(tmp_path / "private" / "opt")
    config = SIConfig("wanda", **RECIPE, calibration={"dataset": str(tmp_path / "private" / "data.txt")})
    pruner.prune(config, calibration("opt"), progress=False)
    shutil.rmtree(tmp_path / "private")  # what has gone is still no name on the Hub
    pruner.push_to_hub("me/opt", with_onnx=True)
    texts = [content for name, content in hub.repositories["me/opt"].items() if not name.endswith(".safetensors")]
    assert len(texts) >= 9 and not any(str(tmp_path).encode() in content for content in texts)


def test_before_a_run_offline_and_with_wrong_names_there_is_a_clear_error(hub, pruner, monkeypatch):
    with pytest.raises(ConfigurationError, match="nothing to publish yet: call prune or induce first"):
        SIPruner(tiny("opt")).push_to_hub(REPOSITORY)
    with pytest.raises(ConfigurationError, match="repo_id='a/b/c' is no name that the Hub allows"):
        pruner.push_to_hub("a/b/c")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(PublishError, match="HF_HUB_OFFLINE is set"):
        pruner.push_to_hub(REPOSITORY)


def test_what_does_not_fit_is_said_and_pull_requests_need_no_branch(hub, pruner, caplog, tmp_path):
    hub.repositories[REPOSITORY] = {}
    commit = pruner.push_to_hub(REPOSITORY, private=True, revision="main", create_pr=True)
    assert commit.pr_url and f"{REPOSITORY} was there already and stays public" in caplog.text
    assert not any("/branch/" in request for request in hub.requests)
    pruner.save_pretrained(tmp_path / "out")
    save_results(tmp_path / "out", [Result("wikitext2", "perplexity", float("inf"))])
    pruner.push_to_hub(REPOSITORY)
    assert ModelCard(hub.repositories[REPOSITORY]["README.md"].decode()).data.eval_results in (None, [])


def test_what_was_measured_of_an_earlier_result_is_not_said_of_the_next(hub, pruner, tmp_path):
    pruner.save_pretrained(tmp_path / "out")
    save_results(tmp_path / "out", [Result("wikitext2", "perplexity", 30.0)])
    pruner.prune(SIConfig("magnitude", **RECIPE), calibration("llama"), progress=False)
    pruner.push_to_hub(REPOSITORY)
    assert "wikitext2 | perplexity" not in hub.repositories[REPOSITORY]["README.md"].decode()
