"""``optimum-cli si export``: a checkpoint for ONNX Runtime."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from optimum_si.config.option_types import read_integer, read_number
from optimum_si.errors import ConfigurationError
from optimum_si.onnx.choices import DEVICES, DTYPES, RUNTIMES, WEIGHTS

from .base import SISubcommand, given


class ExportCommand(SISubcommand):
    HELP = "Export a model for ONNX Runtime."
    USAGE = "MODEL ONNX_DIR [options]"
    DESCRIPTION = (
        "Write a model as an ONNX graph that any ONNX Runtime opens: one graph for prompts and single tokens,\n"
        "weights beside it, zeros kept. Zeros alone make nothing faster on ONNX Runtime's own CPU and CUDA kernels:\n"
        "int8 and int4 do, --weights sparse does on the CPU (2:4 and 90% the most), and 2:4 on TensorRT."
    )
    EXAMPLES = """\
  A pruned checkpoint, for the CPU:
    optimum-cli si export opt-125m-2of4 opt-125m-onnx

  Small and fast on the CPU, with the perplexity that it costs:
    optimum-cli si export opt-125m-2of4 opt-125m-int4 --values int4 --evaluate held-out.txt

  2:4 at its smallest and fastest on the CPU, with optimum-si's own kernels:
    optimum-cli si export opt-125m-2of4 opt-125m-sparse --weights sparse --values int4

  2:4 on an NVIDIA GPU:
    optimum-cli si export opt-125m-2of4 opt-125m-trt --device tensorrt
    optimum-cli si check opt-125m-trt
"""

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument("model", metavar="MODEL", help="Hub id, local folder or GGUF file")
        parser.add_argument("output", type=Path, metavar="ONNX_DIR", help="folder to write")
        parser.add_argument("--gguf-file", metavar="NAME", help="the GGUF file to take of MODEL, a folder or Hub id")
        parser.add_argument("--device", choices=DEVICES, default="cpu", help="(default: cpu)")
        parser.add_argument(
            "--values",
            choices=DTYPES,
            help="how weights are stored (default: fp32 for cpu, fp16 for cuda and tensorrt)",
        )
        parser.add_argument(
            "--weights",
            choices=WEIGHTS,
            help="sparse: leave zeros out and compute with optimum-si's own kernels, on the CPU (default: dense)",
        )
        parser.add_argument(
            "--sparse-min",
            type=read_number,
            metavar="SHARE",
            help="with --weights sparse: least zeros (default: 0.45)",
        )
        parser.add_argument("--include", nargs="+", metavar="GLOB", help="with --weights sparse: only these matrices")
        parser.add_argument("--exclude", nargs="+", metavar="GLOB", help="with --weights sparse: all but these")
        parser.add_argument(
            "--runtime",
            choices=RUNTIMES,
            help="genai: for ONNX Runtime GenAI, by its own builder (default: onnxruntime)",
        )
        parser.add_argument("--opset", type=read_integer, metavar="N", help="version of the ONNX operators")
        parser.add_argument("--evaluate", metavar="DATA", help="print the perplexity on this text, as `evaluate` does")
        parser.add_argument("--max-windows", type=read_integer, metavar="N", help="of --evaluate (default: all)")
        parser.add_argument("--overwrite", action="store_true", help="replace an export that is already there")
        parser.add_argument(
            "--trust-remote-code",
            action="store_true",
            help="run Python code of the model (read it first)",
        )

    def execute(self, args: Namespace) -> None:
        if args.evaluate and args.runtime == "genai":
            raise ConfigurationError("--evaluate computes with ONNX Runtime itself: leave out --runtime genai.")

        from optimum_si.checkpoint.outputs import check_output
        from optimum_si.evaluation.evaluate import evaluate
        from optimum_si.evaluation.perplexity import evaluation_texts
        from optimum_si.onnx import export
        from optimum_si.onnx.directories import weight_bytes

        check_output(args.output, args.overwrite, [args.model, args.evaluate])
        # Read first: a mistyped file should not cost an export.
        texts = evaluation_texts(args.evaluate) if args.evaluate else None
        options = given(args, "device", "values", "weights", "sparse_min", "include", "exclude", "opset", "runtime")
        options |= given(args, "gguf_file")
        export(
            args.model,
            args.output,
            overwrite=args.overwrite,
            trust_remote_code=args.trust_remote_code,
            **options,
        )
        print(f"wrote {args.output} ({weight_bytes(args.output) / 2**20:.1f} MiB of graph and weights)")
        if texts is not None:
            (found,) = evaluate(args.output, dataset=texts, max_windows=args.max_windows)
            print(f"perplexity: {found.perplexity:.4g} on {args.evaluate}, computed by ONNX Runtime")
