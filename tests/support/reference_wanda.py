"""Wanda of a whole model in plain PyTorch, the slow and obvious way: it shares no code with the package.

For every decision the whole model runs on all batches once more, with all that was pruned before in place.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D


Batch = dict[str, Tensor]
#: A share of zeros in every row, or (kept, of): so many are kept of each group of so many.
Target = float | tuple[int, int]


@torch.no_grad()
def reference_masks(
    model: PreTrainedModel,
    batches: Sequence[Batch],
    layers_in_order: Sequence[str | Sequence[str]],
    target: Target,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Tensor]:
    """bool [d_out, d_in] by name of layer, True where a weight is pruned; the model stays as it is.

    Where a mask of tokens has as many as a layer reads, the padding among them is left out.

    Args:
        layers_in_order: names of ``nn.Linear`` and ``Conv1D``. A group of names is decided from one forward, as layers
            that read the same activation may be; what comes later sees the inputs that the pruned ones make.
        dtype: of weights and inputs; squares are summed in fp64 whatever it is. XGLM, MRA and the ears of Gemma 4 know
            no fp64.
    """
    model = _copy(model, dtype)
    modules, masks = dict(model.named_modules()), {}
    for item in layers_in_order:
        names = (item,) if isinstance(item, str) else tuple(item)
        means = _mean_squares(model, {name: modules[name] for name in names}, batches, dtype)
        for name in names:
            weight = _rows(modules[name])
            masks[name] = prune_rows(weight.double().abs() * means[name].sqrt(), target)
            weight[masks[name]] = 0
    return masks


def prune_rows(scores: Tensor, target: Target) -> Tensor:
    """bool like scores [d_out, d_in], True at the lowest scores of each row, or group; of equal ones, the first."""
    if isinstance(target, float):
        count, groups = round(target * scores.shape[1]), scores[:, None]
    else:
        kept, size = target
        count, groups = size - kept, scores.unflatten(1, (-1, size))
    pruned = torch.zeros_like(groups, dtype=torch.bool)
    return pruned.scatter(-1, groups.sort(dim=-1, stable=True).indices[..., :count], True).flatten(1)


@torch.no_grad()
def share_at_target(model: PreTrainedModel, names: Sequence[str], target: Target = 0.5) -> float:
    """The share, among the weights of these parameters, of those that lie in a matrix with as many zeros as asked.

    Args:
        names: of parameters, such as :func:`block_weights` lists.
    """
    wanted = target if isinstance(target, float) else 1 - target[0] / target[1]
    parameters = dict(model.named_parameters(remove_duplicate=False))
    reached = total = 0
    for name in names:
        weight = parameters[name]
        # A row of odd length cannot hold exactly half.
        slack = 0.5 / min(weight.shape)
        total += weight.numel()
        reached += weight.numel() * (float((weight == 0).double().mean()) >= wanted - slack)
    return reached / total


def block_weights(model: PreTrainedModel) -> list[str]:
    """Names of all matrices, and stacks of them, inside lists of modules: each weight once, whatever is tied to it."""
    inside = tuple(f"{name}." for name, module in model.named_modules() if isinstance(module, nn.ModuleList))
    names = (name for name, parameter in model.named_parameters() if parameter.ndim > 1)
    return [name for name in names if name.startswith(inside)]


def _copy(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Of this dtype, with the experts' products written out: the grouped ones know no fp64."""
    model = copy.deepcopy(model).eval()
    for parameter in model.parameters():
        parameter.data = parameter.data.to(dtype)
    for buffer in model.buffers():
        if buffer.is_floating_point():
            buffer.data = buffer.data.to(dtype)
    model.set_experts_implementation("eager")
    return model


def _mean_squares(
    model: PreTrainedModel, layers: dict[str, nn.Module], batches: Sequence[Batch], dtype: torch.dtype
) -> dict[str, Tensor]:
    """fp64 [d_in] of every layer, over the tokens of all its calls."""
    sums, counts = dict.fromkeys(layers, 0.0), dict.fromkeys(layers, 0)
    batch: Batch = {}

    def watch(name: str):
        def hook(module: nn.Module, args: tuple, kwargs: dict) -> None:
            inputs = args[0] if args else next(iter(kwargs.values()))
            tokens = inputs.double().flatten(0, -2)
            for key in ("attention_mask", "decoder_attention_mask"):
                if key in batch and batch[key].numel() == len(tokens):
                    tokens = tokens[batch[key].flatten().bool()]
                    break
            sums[name] = sums[name] + tokens.square().sum(0)
            counts[name] += len(tokens)

        return hook

    hooks = [layer.register_forward_pre_hook(watch(name), with_kwargs=True) for name, layer in layers.items()]
    try:
        for batch in batches:  # noqa: B007 - hooks read it
            model(**{key: value.to(dtype) if value.is_floating_point() else value for key, value in batch.items()})
    finally:
        for hook in hooks:
            hook.remove()
    if missing := [name for name, count in counts.items() if not count]:
        raise ValueError(f"No token reaches {', '.join(missing)}.")
    return {name: sums[name] / counts[name] for name in layers}


def _rows(layer: nn.Module) -> Tensor:
    """The weight as [d_out, d_in], in the memory of the layer's own."""
    return layer.weight.data.T if isinstance(layer, Conv1D) else layer.weight.data
