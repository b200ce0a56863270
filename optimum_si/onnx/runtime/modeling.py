"""An exported model on ONNX Runtime, called as its PyTorch original is."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from huggingface_hub import snapshot_download
from torch import Tensor
from transformers import AutoConfig
from transformers.utils import ModelOutput

from optimum_si.checkpoint.claims import check_config
from optimum_si.errors import CheckpointError, ConfigurationError
from optimum_si.onnx.directories import weight_bytes

from .providers import Provider, providers
from .session import open_session


#: numpy dtypes of ONNX Runtime's types.
DTYPES: dict[str, type] = {
    "tensor(int64)": np.int64,
    "tensor(float)": np.float32,
    "tensor(float16)": np.float16,
    "tensor(double)": np.float64,
    "tensor(bool)": np.bool_,
    "tensor(int32)": np.int32,
}


class ORTSIModel:
    """An exported encoder, classifier or vision model.

    Args:
        session: ONNX Runtime's session of the graph.
        config: config of the model.
        path: file of the graph.
        options: session options, with which :meth:`to` opens it again.
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
            subfolder: folder in the directory or repository, such as "onnx".
            device: "cpu" (the default), "cuda", "cuda:1" or "tensorrt".
            providers: execution providers of ONNX Runtime, instead of ``device``.
            session_options: ``onnxruntime.SessionOptions``, for example to set the number of threads.
            verify: compare files with the checksums of the export; about a second for each GB.
            file: name of the graph's file, where a directory holds several.
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
            check_config(directory / "config.json", weight_bytes(directory))
            config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
        except Exception as error:  # of JSON, of transformers and its configs, whatever is damaged
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
        """Dtype of floating-point outputs."""
        first = self.session.get_outputs()[0].type
        return {"tensor(float16)": torch.float16, "tensor(double)": torch.float64}.get(first, torch.float32)

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
            inputs: other inputs of the graph. Masks and types that it takes and that are not given are those of
                unpadded single texts; types that are all zero may be given to a graph that takes none.

        Raises:
            ConfigurationError: for inputs that the graph does not take, that are missing, or of another kind or
                shape, and for token ids outside the vocabulary.
        """
        if input_ids is not None:
            inputs["input_ids"] = input_ids
        inputs = {name: value for name, value in inputs.items() if value is not None}
        refuse_unknown({name: value for name, value in inputs.items() if name not in self._inputs}, self._inputs)
        feeds = {name: self._array(name, value) for name, value in inputs.items() if name in self._inputs}
        if "input_ids" in feeds:
            shape = feeds["input_ids"].shape
            if "attention_mask" in self._inputs:
                feeds.setdefault("attention_mask", np.ones(shape, np.int64))
            if "token_type_ids" in self._inputs:
                feeds.setdefault("token_type_ids", np.zeros(shape, np.int64))
        self._check_given(feeds)
        with computing(feeds):
            values = self.session.run(None, feeds)
        return ModelOutput(zip(self._outputs, map(torch.from_numpy, values), strict=True))

    def _array(self, name: str, value: Any) -> np.ndarray:
        """An input as the graph takes it; its dtype and its number of axes have to be right already."""
        declared = self._inputs[name]
        array = value.detach().cpu().numpy() if isinstance(value, Tensor) else np.asarray(value)
        wanted = np.dtype(DTYPES[declared.type])
        axes = [str(size) for size in declared.shape]
        if array.ndim != len(axes) or (wanted.kind in "iub") != (array.dtype.kind in "iub"):
            raise ConfigurationError(
                f"{name} is {array.dtype} {list(array.shape)}: expected {wanted} [{', '.join(axes)}]."
            )
        if name.endswith("input_ids"):
            check_vocabulary(array, self.config)
        return np.ascontiguousarray(array.astype(wanted, copy=False))

    def _check_given(self, given: dict[str, np.ndarray]) -> None:
        """Every input is there, and axes of one name have one size: kernels do not check all of them."""
        if missing := set(self._inputs) - set(given):
            raise ConfigurationError(
                f"the graph takes {', '.join(sorted(self._inputs))}; {', '.join(sorted(missing))} missing."
            )
        sizes: dict[str, tuple[int, str]] = {}
        for name, array in given.items():
            for axis, size in zip(self._inputs[name].shape, array.shape, strict=True):
                expected, other = (
                    sizes.setdefault(axis, (size, name)) if isinstance(axis, str) else (axis, "the graph")
                )
                if size != expected:
                    raise ConfigurationError(f"{name} has {axis}={size}, and {other} has {expected}.")


def refuse_unknown(given: dict[str, Any], accepted: Iterable[str]) -> None:
    """Raise :class:`ConfigurationError` for arguments that would change nothing, where a reader expects that they do.

    Args:
        given: arguments that the graph does not take; None, False and token types of single texts ask for nothing.
        accepted: names for the message.
    """
    for name, value in given.items():
        if name == "return_dict":
            asks = value is False
        elif name == "token_type_ids":
            asks = bool(np.asarray(value).any())
        else:
            asks = value is not None and value is not False
        if asks:
            fix = "compute the loss from the logits" if name == "labels" else "leave it out"
            raise ConfigurationError(
                f"{name} is given, and the exported graph has no such input or output (it takes "
                f"{', '.join(accepted)}): {fix}."
            )


def check_vocabulary(ids: np.ndarray, config: Any) -> None:
    """Raise :class:`ConfigurationError` for ids outside the vocabulary: negative ones would count from its end."""
    size = getattr(config.get_text_config(), "vocab_size", None)
    if ids.size and (ids.min() < 0 or (size is not None and ids.max() >= size)):
        raise ConfigurationError(
            f"token ids reach from {ids.min()} to {ids.max()}, and the model has ids from 0 to "
            f"{'...' if size is None else size - 1}: use the tokenizer that belongs to it."
        )


@contextmanager
def computing(feeds: dict[str, np.ndarray]) -> Iterator[None]:
    """ONNX Runtime's own errors, which have no common base, as errors that name the inputs."""
    try:
        yield
    except Exception as error:
        shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in feeds.items())
        raise ConfigurationError(
            f"ONNX Runtime cannot compute with {shapes}: {' '.join(str(error).split())[:300]} Shapes may not belong "
            "together, or there are more tokens than the model has positions."
        ) from error


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


def to_ids(value: Tensor) -> np.ndarray:
    """Token ids, masks or positions as ONNX Runtime takes them: int64, on the host and contiguous."""
    return np.ascontiguousarray(value.detach().cpu().numpy().astype(np.int64, copy=False))
