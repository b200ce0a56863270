"""Every test is seeded, stays off the network and uses one thread: most models here are too small for two."""

import os


# Before anything imports huggingface_hub, which reads it once.
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from collections.abc import Callable, Iterator  # noqa: E402
from contextlib import AbstractContextManager, nullcontext  # noqa: E402
from importlib.util import find_spec  # noqa: E402
from pathlib import Path  # noqa: E402

import huggingface_hub.constants  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402
import transformers.utils.hub  # noqa: E402
from hypothesis import settings  # noqa: E402
from support.hub_server import HubServer  # noqa: E402
from support.models import FAMILIES  # noqa: E402
from support.onnx_models import CAUSAL  # noqa: E402


# No deadline: the first example pays for imports. CI draws the same examples every time.
settings.register_profile("optimum-si", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("optimum-si")
torch.set_num_threads(1)

TESTS = Path(__file__).parent
#: Tests that export models, or run real commands.
LONGEST = ("demo", "docs", "onnx", "hub", "commands", "examples", "algorithms/quantization")
#: What `make test` leaves to `make test-all`, beside tests that are marked themselves.
SLOW = (
    "commands/test_packaging.py",
    "demo/test_demo.py",
    "docs/test_pages.py",
    "examples",
    "onnx/kernels/test_sanitized.py",
    "report/test_browser.py",
)
#: A claim about every architecture is made of these in `make test`, and of all others in `make test-all`.
FAST_MODELS = {"llama", "llama-shallow", "opt", "bert", "gpt2"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell the slow tier, and put what takes longest first: short tests at the end leave no worker alone."""
    others = {*FAMILIES, *CAUSAL} - FAST_MODELS
    for item in items:
        parameters = item.callspec.params.values() if hasattr(item, "callspec") else ()
        about_others = any(isinstance(value, str) and value in others for value in parameters)
        if about_others or _lies_in(item, SLOW):
            item.add_marker(pytest.mark.slow)
    items.sort(key=lambda item: not _lies_in(item, LONGEST))


def _lies_in(item: pytest.Item, places: tuple[str, ...]) -> bool:
    return any(item.path.is_relative_to(TESTS / place) for place in places)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def traced_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], AbstractContextManager[None]]:
    """``with traced_once(): export(...)``: a model is traced once in a run, whichever worker comes first."""
    if find_spec("onnxscript") is None:
        return nullcontext
    from support.trace_cache import TraceCache

    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    return TraceCache(folder / "traces").in_use


@pytest.fixture(scope="session")
def real_model_path() -> Path:
    """The checkpoint of SmolLM2-135M-Instruct, for slow tests; they are skipped where the package cannot be had."""
    from optimum_si import CheckpointError
    from optimum_si.demo.real_model import real_model_directory

    try:
        return real_model_directory()
    except CheckpointError as error:
        if "pip cannot get" not in str(error):
            raise
        pytest.skip(str(error))


@pytest.fixture
def trace_cache(traced_once: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """For tests that export, and are not about tracing: a model that another test has traced is not traced again."""
    with traced_once():
        yield


@pytest.fixture
def local_hub(monkeypatch: pytest.MonkeyPatch, tmp_path) -> Iterator[HubServer]:
    """A Hub on the loopback interface, which this process uses instead of the real one."""
    with HubServer() as hub:
        constants = huggingface_hub.constants
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        # transformers keeps one client, made for the endpoint that it saw first.
        monkeypatch.setattr(transformers.utils.hub, "_hf_api", None)
        yield hub
