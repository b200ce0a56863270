"""The paper's times (arXiv 2602.21652): refreshing Wanda's score after a scale has changed, and 2:4 latency.

    python examples/reproduce_paper_speed.py huggyllama/llama-7b --device cuda --dtype float16
    python examples/reproduce_paper_speed.py path/to/model --calibration text.txt

Refreshing: activations are taken anew in a forward pass over the samples, one at a time, or their moments are scaled
(Eq. 9-11). The paper: 345.91 s -> 15.27 s, 22.65 x, for LLaMA-7B and 128 samples. Latency: the same 2:4 model with
dense and with compressed weights, on GPUs with sparse tensor cores. The paper: 312 ms -> 251 ms, 1.24 x, which is what
any 2:4 model gains. With SI_QUICK=1 few short windows are used.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from optimum_si import SIConfig, SIPruner
from optimum_si.algorithms.pruning.methods.wanda import Wanda
from optimum_si.calibration import prepare_examples
from optimum_si.config.groups import CalibrationConfig
from optimum_si.linalg.moments import MomentAccumulator, Moments
from optimum_si.models.structure import find_structure
from optimum_si.models.weight_view import WeightView


QUICK = os.environ.get("SI_QUICK") == "1"
REPEATS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("model", help="directory or Hub id")
    add("--calibration", default="c4", help="dataset or files (default: %(default)s)")
    add("--samples", type=int, default=4 if QUICK else 128, help="windows (default: %(default)s)")
    add("--length", type=int, default=16 if QUICK else 2048, help="tokens of a window (default: %(default)s)")
    add("--device", help="such as cuda")
    add("--dtype", help="of the weights, such as float16 (default: as saved)")
    add("--json", action="store_true", help="print JSON instead of lines")
    args = parser.parse_args()

    options = {"device": args.device, **({"dtype": args.dtype} if args.dtype else {})}
    pruner = SIPruner.from_pretrained(args.model, **options)
    data = CalibrationConfig(num_samples=args.samples, sequence_length=args.length)
    length = pruner.model.config.get_text_config().max_position_embeddings
    examples = prepare_examples(args.calibration, data, pruner.tokenizer, length)
    samples = [example["input_ids"].to(pruner.model.device) for example in examples]
    result = {"model": args.model, "samples": len(samples), **refresh(pruner.model, samples)}
    result |= latency(pruner, samples)
    print(json.dumps(result, indent=2) if args.json else lines(result))


def refresh(model: nn.Module, samples: list[Tensor]) -> dict[str, float]:
    """Seconds until every weight has a new Wanda score: with a forward pass, and by scaling moments."""
    views = [view for block in find_structure(model).blocks for view in block.views.values()]
    scales = {view.name: torch.rand(view.read().shape[1], device=model.device) + 0.5 for view in views}
    moments: dict[str, Moments] = {}

    def anew() -> None:
        moments.update(moments_of(model, samples, views))
        for view in views:
            Wanda().score(view.read(), moments[view.name])

    def scaled() -> None:
        for view in views:
            Wanda().score(view.read(), moments[view.name].transformed(scales[view.name]))

    return {"forward_seconds": seconds(anew, model.device), "scaled_seconds": seconds(scaled, model.device)}


def moments_of(model: nn.Module, samples: list[Tensor], views: list[WeightView]) -> dict[str, Moments]:
    """Moments of the inputs of every weight, over samples int64 [1, T] that pass one at a time."""
    found: dict[str, MomentAccumulator] = {}

    def add(name: str, values: Tensor) -> None:
        tokens = values.reshape(-1, values.shape[-1])
        if name not in found:
            found[name] = MomentAccumulator(tokens.shape[1], False, tokens.device)
        found[name].add(tokens)

    hooks = [
        view.module.register_forward_pre_hook(lambda _, inputs, name=view.name: add(name, inputs[0])) for view in views
    ]
    with torch.no_grad():
        for sample in samples:
            model(input_ids=sample)
    for hook in hooks:
        hook.remove()
    return {name: accumulator.moments() for name, accumulator in found.items()}


def latency(pruner: SIPruner, samples: list[Tensor]) -> dict[str, Any]:
    """Milliseconds of a forward pass of a 2:4 model, dense and compressed; why not, where that cannot be measured."""
    model = pruner.model
    if model.device.type != "cuda" or torch.cuda.get_device_capability() < (8, 0) or model.dtype == torch.float32:
        return {"latency": "not measured: it needs --device cuda, sparse tensor cores and --dtype float16"}
    pruner.prune(SIConfig("magnitude", pattern="2:4", induction=None), dataset=samples[:1])

    def forward() -> None:
        with torch.no_grad():
            model(input_ids=samples[0], use_cache=False)

    forward()
    dense = median(seconds(forward, model.device) for _ in range(REPEATS))
    for block in find_structure(model).blocks:
        for view in block.views.values():
            if view.is_whole:
                weight = torch.sparse.to_sparse_semi_structured(view.tensor().detach())
                setattr(view.module, view.parameter, nn.Parameter(weight))
    forward()
    sparse = median(seconds(forward, model.device) for _ in range(REPEATS))
    return {"dense_milliseconds": 1000 * dense, "sparse_milliseconds": 1000 * sparse}


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """Until the device has finished."""
    start = time.perf_counter()
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start


def lines(result: dict[str, Any]) -> str:
    forward, scaled = result["forward_seconds"], result["scaled_seconds"]
    found = [
        f"refresh with a forward pass: {forward:.3f} s",
        f"by scaling moments: {scaled:.3f} s ({forward / scaled:.1f} x)",
    ]
    if "latency" in result:
        return "\n".join([*found, f"latency: {result['latency']}"])
    dense, sparse = result["dense_milliseconds"], result["sparse_milliseconds"]
    return "\n".join(
        [*found, f"latency, 2:4: dense {dense:.1f} ms, compressed {sparse:.1f} ms ({dense / sparse:.2f} x)"]
    )


if __name__ == "__main__":
    main()
