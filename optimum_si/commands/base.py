"""What the subcommands share: help that teaches by example, exit codes, and arguments that several of them take."""

import os
import shlex
import sys
import traceback
import warnings
from abc import abstractmethod
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from dataclasses import replace
from typing import Any, ClassVar

from optimum.commands.base import BaseOptimumCLICommand

from optimum_si.config.fields import Option, options
from optimum_si.config.groups import DATASETS, CalibrationConfig
from optimum_si.errors import ConfigurationError, SIError


FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130


class SISubcommand(BaseOptimumCLICommand):
    """One verb of ``optimum-cli si``. A subclass states its help and examples, its arguments and what it does."""

    HELP: ClassVar[str]
    USAGE: ClassVar[str]
    DESCRIPTION: ClassVar[str]
    EXAMPLES: ClassVar[str]

    @classmethod
    def parse_args(cls, parser: ArgumentParser) -> None:
        # Optimum makes the parser with a name and a help line only; argparse reads these when it prints.
        parser.usage = f"%(prog)s {cls.USAGE}"
        parser.description = cls.DESCRIPTION
        parser.epilog = f"examples:\n{cls.EXAMPLES}\nexit codes: 0 done, 1 the run failed, 2 wrong usage"
        parser.formatter_class = RawDescriptionHelpFormatter
        cls.add_arguments(parser)
        parser.add_argument("--debug", action="store_true", help="show the traceback of an error")

    @classmethod
    @abstractmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        """Declare the arguments; must import neither torch nor transformers."""

    @abstractmethod
    def execute(self, args: Namespace) -> None:
        """Do the work; heavy imports belong in here."""

    def run(self) -> None:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            self._run()

    def _run(self) -> None:
        try:
            for name, value in vars(self.args).items():
                if value in (["--"], []):  # argparse gives a list where "--" stands twice, whatever the argument takes
                    raise ConfigurationError(f"{name}='--': give it a value of its own.")
            self.execute(self.args)
            sys.stdout.flush()
        except KeyboardInterrupt:
            self._stop(INTERRUPTED, "interrupted")
        except BrokenPipeError as error:
            # The reader, such as `head`, has gone: what is left in the buffer must not fail again at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            self._stop(FAILED, f"error: {one_line(error)}")
        except Exception as error:
            if self.args.debug:
                print(_printable(traceback.format_exc()), file=sys.stderr)
            self._stop(WRONG_USAGE if isinstance(error, ConfigurationError) else FAILED, f"error: {one_line(error)}")

    @staticmethod
    def _stop(code: int, message: str) -> None:
        print(message, file=sys.stderr)
        sys.exit(code)


def one_line(error: Exception) -> str:
    """The message of an error on one line; errors that nobody foresaw also say their type and how to learn more."""
    message = _printable(" ".join(str(error).split()))
    if message and isinstance(error, (SIError, OSError)):
        return message
    name = type(error).__name__
    return f"{name}: {message} (--debug shows the traceback)" if message else f"{name} (--debug shows the traceback)"


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A line for the user, without the file and source line that Python adds for developers."""
    print("warning:", _printable(" ".join(str(message).split())), file=sys.stderr)


def _printable(text: str) -> str:
    from optimum_si.report.text import printable  # not before something is printed: it is no part of --help

    return printable(text)


def given(args: Namespace, *names: str) -> dict[str, Any]:
    """The arguments among ``names`` that the user gave; every one of them has None as its default."""
    return {name: value for name in names if (value := getattr(args, name, None)) is not None}


def command_line(verb: str, **options: object) -> str:
    """A command that can be pasted into a shell; options that are None are left out."""
    pairs = [(f"--{name}", str(value)) for name, value in options.items() if value is not None]
    return shlex.join(["optimum-cli", "si", verb, *(word for pair in pairs for word in pair)])


def add_model_arguments(parser: ArgumentParser, several: str | None = None) -> None:
    """The arguments that name and load a model; ``several`` is the help of commands that take a list of them."""
    group = parser.add_argument_group("model")
    if several is None:
        group.add_argument("-m", "--model", required=True, metavar="MODEL", help="Hub id, local folder or GGUF file")
    else:
        group.add_argument("-m", "--model", required=True, nargs="+", metavar="MODEL", help=several)
    which = "MODEL" if several is None else "the first model"
    group.add_argument("--gguf-file", metavar="NAME", help=f"the GGUF file to take of {which}, a folder or Hub id")
    group.add_argument("--tokenizer", metavar="TOKENIZER", help="Hub id or local folder (default: the model's own)")
    group.add_argument(
        "--dtype", choices=("auto", "float32", "bfloat16", "float16"), help="of the weights (default: as saved)"
    )
    group.add_argument("--device", metavar="DEVICE", help='where to compute, such as "cpu", "cuda" or "cuda:1"')
    group.add_argument(
        "--trust-remote-code", action="store_true", help="run Python code that comes with the model (read it first)"
    )


def model_options(args: Namespace) -> dict[str, Any]:
    """Keyword arguments of ``SIPruner.from_pretrained``."""
    return {"trust_remote_code": args.trust_remote_code, **given(args, "gguf_file", "tokenizer", "dtype", "device")}


def add_option(group: Any, option: Option) -> None:
    """The flag of an option of a recipe; None as its default tells what the user gave from what was left out."""
    default = f" (default: {option.default_in_words})" if option.default_in_words else ""
    group.add_argument(option.flag, dest=option.key, default=None, help=option.help + default, **option.type.argument)


def add_data_arguments(group: Any, purpose: str, split: str) -> None:
    """The arguments that name a text dataset and cut it into windows; ``split`` is the default one."""
    known = options(CalibrationConfig)
    known["dataset"] = replace(known["dataset"], help=f"{purpose}: {DATASETS}")
    known["column"] = replace(known["column"], help="column of text")
    known["split"] = replace(known["split"], none=split)
    for name in ("dataset", "dataset_config", "split", "column", "sequence_length", "batch_size"):
        add_option(group, known[name])
