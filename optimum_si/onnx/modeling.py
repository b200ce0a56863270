"""An exported model on ONNX Runtime, called as its PyTorch original is."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import AutoConfig
from transformers.utils import ModelOutput

from ..errors import CheckpointError, ConfigurationError
from .execution import Provider, providers
from .session import open_session


#: numpy dtypes of ONNX Runtime's types.
DTYPES: dict[str, type] = {
    "tensor(int64)": np.int64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
}


class ORTSIModel:
    """An exported encoder, classifier or vision model.

    Args:
        session: of the graph.
        config: of the model.
        path: of the graph.
        options: what :meth:`to` opens it with again.
    """

    def __init__(self, session: Any, config: Any, path: Path, options: Any = None) -> None:
        self.session, self.config, self.path, self.options = session, config, path, options
        self._inputs = {value.name: value for value in session.get_inputs()}
        self._outputs = [value.name for value in session.get_outputs()]

    @property
    def takes_cache(self) -> bool:
        """Whether the graph is that of a causal language model with a cache."""
        return any(name.startswith("past_key_values") for name in self._inputs)

    @classmethod
    def from_pretrained(
        cls,
        model_id: str | Path,
        subfolder: str | None = None,
        *,
        device: str | None = None,
        providers: list[Provider] | None = None,
        session_options: Any = None,
        verify: bool = True,
        file: str = "model.onnx",
        **kwargs: Any,
    ) -> Self:
        """Open what ``optimum_si.onnx.export`` wrote.

        Args:
            model_id: a directory or a Hub id.
            subfolder: of the directory or repository, such as "onnx".
            device: "cpu" (the default), "cuda", "cuda:1" or "tensorrt".
            providers: execution providers of ONNX Runtime, instead of ``device``.
            session_options: ``onnxruntime.SessionOptions``, for example to set the number of threads.
            verify: compare files with the checksums of the export; about a second for each GB.
            file: of the graph, where a directory holds several.
            kwargs: ``revision``, ``token``, ``cache_dir``, ``local_files_only`` for the Hub.

        Raises:
            CheckpointError: when there is no export, or it is damaged.
            ProviderError: when ONNX Runtime lacks the provider.
        """
        if device is not None and providers is not None:
            raise ConfigurationError(f"device={device!r} and providers={providers!r}: give one of them.")
        directory = find_directory(model_id, subfolder, **kwargs)
        chosen = _providers(device) if providers is None else providers
        session = open_session(directory / file, chosen, session_options, verify)
        try:
            config = AutoConfig.from_pretrained(directory)
        except (OSError, ValueError) as error:
            raise CheckpointError(
                f"{str(directory)!r} has no readable config.json ({error}): export again."
            ) from error
        return cls(session, config, directory / file, session_options)

    @property
    def device(self) -> torch.device:
        """Where inputs are taken from and outputs are given: the memory of the host, whatever computes."""
        return torch.device("cpu")

    @property
    def providers(self) -> list[str]:
        """Execution providers that compute, in the order of preference."""
        return list(self.session.get_providers())

    @property
    def dtype(self) -> torch.dtype:
        """Of floating-point outputs."""
        kind = self.session.get_outputs()[0].type
        return {"tensor(float16)": torch.float16, "tensor(double)": torch.float64}.get(kind, torch.float32)

    def to(self, device: Any = None, *_: Any, **__: Any) -> Self:
        """Compute on another device: "cpu", "cuda", "cuda:1" or "tensorrt". A dtype is left as it was exported."""
        if device is None or isinstance(device, torch.dtype):
            return self
        chosen = _providers(str(device))
        first = chosen[0] if isinstance(chosen[0], str) else chosen[0][0]
        if first != self.session.get_providers()[0] or ":" in str(device):
            session = open_session(self.path, chosen, self.options, verify=False)
            self.__init__(session, self.config, self.path, self.options)  # type: ignore[misc]
        return self

    def eval(self) -> Self:
        """Graphs are exported for inference: nothing changes."""
        return self

    def __call__(self, *args: Any, **kwargs: Any) -> ModelOutput:
        return self.forward(*args, **kwargs)

    def forward(self, input_ids: Tensor | None = None, **inputs: Any) -> ModelOutput:
        """Outputs by name, as tensors on the CPU.

        Args:
            input_ids: int64 [batch, tokens].
            inputs: other inputs of the graph; what it does not take is left out. Masks and types that it takes and
                that are not given are those of unpadded single texts.
        """
        if input_ids is not None:
            inputs["input_ids"] = input_ids
        feeds = {
            name: to_array(value, self._inputs[name].type) for name, value in inputs.items() if name in self._inputs
        }
        if "input_ids" in feeds:
            shape = feeds["input_ids"].shape
            if "attention_mask" in self._inputs:
                feeds.setdefault("attention_mask", np.ones(shape, np.int64))
            if "token_type_ids" in self._inputs:
                feeds.setdefault("token_type_ids", np.zeros(shape, np.int64))
        self._check_given(feeds)
        values = self.session.run(None, feeds)
        return ModelOutput(zip(self._outputs, map(torch.from_numpy, values), strict=True))

    def _check_given(self, given: Iterable[str]) -> None:
        if missing := set(self._inputs) - set(given):
            raise ConfigurationError(
                f"the graph takes {', '.join(sorted(self._inputs))}; {', '.join(sorted(missing))} missing."
            )


def find_directory(model_id: str | Path, subfolder: str | None, **kwargs: Any) -> Path:
    """The local directory of an export, downloaded where it is a Hub id."""
    local = Path(model_id)
    if not local.is_dir():
        patterns = None if subfolder is None else [f"{subfolder}/*"]
        try:
            local = Path(snapshot_download(str(model_id), allow_patterns=patterns, **kwargs))
        except Exception as error:
            raise CheckpointError(
                f"{str(model_id)!r} is no directory, and the Hub gives no such repository: {error}"
            ) from error
    directory = local / subfolder if subfolder else local
    if not directory.is_dir():
        raise CheckpointError(f"{str(local)!r} has no folder {subfolder!r}: leave subfolder out, or export into it.")
    return directory


def _providers(device: str | None) -> list[Provider]:
    return providers(device or "cpu")


def to_array(value: Any, kind: str = "tensor(int64)") -> np.ndarray:
    """A tensor as ONNX Runtime takes it: on the host, contiguous, in the dtype of an input of this type."""
    array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
    wanted = DTYPES.get(kind)
    return np.ascontiguousarray(array if wanted is None else array.astype(wanted, copy=False))
