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


# No deadline: the first example pays for imports. CI draws the same examples every time.
settings.register_profile("optimum-si", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("optimum-si")
torch.set_num_threads(1)

#: Tests that export models, or run real commands.
LONGEST = ("demo", "docs", "onnx", "hub", "commands", "examples", "algorithms/quantization")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What takes longest comes first: short tests at the end leave no worker alone with a long one."""
    tests = Path(__file__).parent
    items.sort(key=lambda item: not any(item.path.is_relative_to(tests / name) for name in LONGEST))


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
