"""``optimum-cli si check``: what the matrices of an exported graph hold."""

import json
from argparse import ArgumentParser, Namespace
from pathlib import Path

from .base import SISubcommand


class CheckCommand(SISubcommand):
    HELP = "Show zeros and patterns in an exported graph."
    USAGE = "ONNX_DIR [--json]"
    DESCRIPTION = (
        "Walk an exported graph and print for each matrix its shape, its zeros, and whether 2:4 or 4:8 holds along\n"
        "its inputs (exporting transposes and packs weights), and so which provider can use it. Files are compared\n"
        "with the checksums that the export recorded."
    )
    EXAMPLES = """\
  What an export holds:
    optimum-cli si check opt-125m-onnx

  Whether a graph for TensorRT is 2:4 where it should be:
    optimum-cli si export opt-125m-2of4 opt-125m-trt --device tensorrt
    optimum-cli si check opt-125m-trt

  For a program to read:
    optimum-cli si check opt-125m-onnx --json
"""

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument("directory", type=Path, metavar="ONNX_DIR", help="folder that `export` wrote")
        parser.add_argument("--json", action="store_true", help="print JSON instead of a table")

    def execute(self, args: Namespace) -> None:
        from optimum_si.onnx.inspect import check, summary

        found = check(args.directory)
        print(json.dumps([matrix.to_dict() for matrix in found], indent=2) if args.json else summary(found))
