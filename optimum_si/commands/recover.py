"""``optimum-cli si recover``: more training of a model that is already pruned."""

from argparse import ArgumentParser, Namespace
from dataclasses import replace
from pathlib import Path

from optimum_si.config.fields import flagged, options
from optimum_si.config.groups import DATASETS, OR_OWN_TEXT, CalibrationConfig
from optimum_si.config.option_types import read_integer
from optimum_si.config.recovery import RecoveryConfig
from optimum_si.errors import ConfigurationError

from .base import SISubcommand, add_option, given


#: What of the calibration data can be said here; the rest is as the model was pruned.
_DATA = ("dataset", "dataset_config", "split", "column", "sequence_length")
_PLACES = ("dataset_config", "split", "column")


class RecoverCommand(SISubcommand):
    HELP = "Train a pruned model as a whole towards its dense one."
    USAGE = "DIR [-m DENSE] [--dataset DATA] [-o OUT] [--minutes F] [options]"
    DESCRIPTION = (
        "Train the kept weights of a pruned model towards what the dense model answers; zeros stay zeros.\n"
        "An interrupted command goes on where it was, within five minutes of it, when it is repeated."
    )
    EXAMPLES = """\
  On the data that it was pruned with, in place, for half an hour; the dense model is the one that its report names:
    optimum-cli si recover opt-125m-2of4 --minutes 30

  On more text, with the dense model in a folder, into a folder of its own:
    optimum-cli si recover my-model-2of4 --dataset "corpus/*.txt" -m ./my-model --num-samples 512 -o my-model-recovered

  Where memory is short: norms, biases and a factor for each row alone:
    optimum-cli si recover my-model-2of4 -m ./my-model --trains scales -o my-model-scaled
"""

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument("directory", metavar="DIR", help="pruned model: a local folder or a Hub id")
        model = parser.add_argument_group("model")
        model.add_argument(
            "-m", "--model", metavar="DENSE", help="Hub id or local folder of the dense model (default: its base)"
        )
        model.add_argument("--device", metavar="DEVICE", help='where to compute, such as "cpu", "cuda" or "cuda:1"')
        recovery = parser.add_argument_group("recovery")
        for option in flagged(RecoveryConfig).values():
            add_option(recovery, replace(option, prefix=""))
        recovery.add_argument(
            "--seed", type=read_integer, metavar="N", help="of windows and their order (default: as pruned)"
        )
        data = parser.add_argument_group("data")
        for name in _DATA:
            option = options(CalibrationConfig)[name]
            meaning = (
                f"text to train on: {DATASETS}{OR_OWN_TEXT} (default: as pruned)" if name == "dataset" else option.help
            )
            add_option(data, replace(option, help=meaning, default=None, none=""))
        output = parser.add_argument_group("output")
        output.add_argument(
            "-o", "--output", type=Path, metavar="OUT", help="folder of the new checkpoint (default: DIR, in place)"
        )
        output.add_argument("--overwrite", action="store_true", help="replace a checkpoint that is already in OUT")

    def execute(self, args: Namespace) -> None:
        recovery = RecoveryConfig(**given(args, *flagged(RecoveryConfig)))

        from optimum_si.checkpoint.outputs import check_output

        if args.output is None and not Path(args.directory).is_dir():
            raise ConfigurationError(f"{args.directory!r} is no local folder: say with -o where the result goes.")
        output = Path(args.directory) if args.output is None else args.output
        overwrite = args.overwrite or args.output is None
        in_place = output.resolve() == Path(args.directory).resolve()
        check_output(output, overwrite, [] if in_place else [args.directory, args.model, args.dataset])

        from optimum_si.config.si_config import SIConfig
        from optimum_si.pipeline.recover_alone import saved_recipe
        from optimum_si.pruner import SIPruner

        pruner = SIPruner.from_pretrained(args.directory, **given(args, "device"))
        recipe = (saved_recipe(pruner.source) or SIConfig()).to_dict()
        calibration = recipe["calibration"]
        if args.dataset not in (None, calibration["dataset"]):
            # These belong to other data.
            calibration |= dict.fromkeys(_PLACES)
        calibration |= given(args, "dataset_config", "split", "column", "sequence_length", "seed")
        recipe |= {**given(args, "seed"), "recovery": recovery}
        pruner.recover(SIConfig(**recipe), args.dataset, dense=args.model, save_dir=output, overwrite=overwrite)
        done = None if pruner.report is None else pruner.report.recovery
        if done is not None and done.loss_after is not None:
            print(
                f"recovery: held-out distance from the dense model {done.loss_before:.4f} -> {done.loss_after:.4f}, "
                f"{done.steps} steps in {done.seconds / 60:.1f} minutes; saved in {output}"
            )
