"""``optimum-cli si benchmark``: speed, memory and size of models side by side."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from optimum_si.config.option_types import read_integer

from .base import SISubcommand, given


class BenchmarkCommand(SISubcommand):
    HELP = "Compare speed, memory and size of checkpoints and exports."
    USAGE = "DIR [DIR ...] [options]"
    DESCRIPTION = (
        "Measure checkpoints (in PyTorch) and exports (in ONNX Runtime) side by side: each in a process of its own,\n"
        "computing in turns, so that a busy machine slows all of them alike. Medians, and ratios to the first."
    )
    EXAMPLES = """\
  What exporting brings:
    optimum-cli si benchmark opt-125m-2of4 opt-125m-onnx opt-125m-int4

  Long prompts in batches:
    optimum-cli si benchmark opt-125m-onnx opt-125m-int4 --prompt 512 --batch-size 4

  On one thread, with a picture, for a program to read:
    optimum-cli si benchmark opt-125m-2of4 opt-125m-onnx --threads 1 --chart speed.png --json
"""

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument("directories", nargs="+", type=Path, metavar="DIR", help="checkpoints and exports")
        parser.add_argument("--prompt", type=read_integer, metavar="N", help="tokens of the prompt (default: 64)")
        parser.add_argument("--new-tokens", type=read_integer, metavar="N", help="generated after it (default: 32)")
        parser.add_argument("--batch-size", type=read_integer, metavar="N", help="prompts at once (default: 1)")
        parser.add_argument("--repeats", type=read_integer, metavar="N", help="turns (default: 5)")
        parser.add_argument(
            "--threads", type=read_integer, metavar="N", help="of each model (default: the runtimes' choice)"
        )
        parser.add_argument("--device", metavar="DEVICE", help="of exports: cpu (default), cuda or tensorrt")
        parser.add_argument("--chart", type=Path, metavar="FILE", help="also draw a bar chart, as .png or .svg")
        parser.add_argument("--json", action="store_true", help="print JSON instead of a table")

    def execute(self, args: Namespace) -> None:
        from optimum_si.onnx.benchmark import benchmark
        from optimum_si.onnx.speeds import plot, summary

        options = given(args, "prompt", "new_tokens", "batch_size", "repeats", "threads", "device")
        speeds = benchmark(args.directories, **options)
        print(json.dumps([speed.to_dict() for speed in speeds], indent=2) if args.json else summary(speeds))
        if args.chart is not None:
            plot(speeds, args.chart)
