"""Whether an exported graph answers as the model that it came from, before it takes its place."""

from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel

from ..errors import ExportError
from ..models.calls import evaluation_mode
from .causal import ORTSIModelForCausalLM
from .modeling import ORTSIModel
from .session import open_session
from .tracing import is_causal, sample


#: Largest error of an fp32 graph, relative to the norm of the answer.
TOLERANCE = 1e-3


def verify(model: PreTrainedModel, path: Path) -> None:
    """Compare the answers of a graph in fp32 on the CPU with those of PyTorch, on a small sample.

    Raises:
        ExportError: when they differ.
    """
    kind = ORTSIModelForCausalLM if is_causal(model) else ORTSIModel
    exported = kind(open_session(path, None, verify=False), model.config, path)
    inputs: dict[str, Any] = sample(model)
    if "attention_mask" in inputs:
        # Without padding: positions of padded rows are a matter of taste until a cache settles them.
        inputs["attention_mask"] = torch.ones_like(inputs["attention_mask"])
    with evaluation_mode(model), torch.no_grad():
        expected = model(**inputs)[0].float().cpu()
    try:
        answer = next(iter(exported(**inputs).values())).float()
    except RuntimeError as error:
        raise ExportError(
            f"ONNX Runtime cannot compute the exported graph of {type(model).__name__}: it was not written. "
            f"{str(error)[:300]}"
        ) from error
    difference = float((answer - expected).norm() / expected.norm().clamp_min(1e-30))
    if not difference <= TOLERANCE:
        raise ExportError(
            f"the exported graph of {type(model).__name__} does not answer as the model does (relative error of a "
            f"sample {difference:.2g}, accepted {TOLERANCE:g}): it was not written. Try another runtime or "
            "another version of onnxruntime."
        )
