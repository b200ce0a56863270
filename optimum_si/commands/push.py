"""``optimum-cli si push``: a pruned checkpoint to the Hub, with its card."""

from argparse import ArgumentParser, Namespace
from pathlib import Path

from .base import SISubcommand, given


class PushCommand(SISubcommand):
    HELP = "Publish a pruned model on the Hub, with a model card."
    USAGE = "DIR OWNER/NAME [--with-onnx] [options]"
    DESCRIPTION = (
        "Publish what `prune` wrote, in one commit: weights, configs, tokenizer, recipe, report, pictures and a\n"
        "model card that says what was done, what it cost and how to use it. A card that you edited is kept, here\n"
        "and on the Hub. The token is that of `hf auth login` or of HF_TOKEN. After a lost connection run the same\n"
        "again: what has arrived is not sent twice."
    )
    EXAMPLES = """\
  Publish a model for all to see:
    optimum-cli si push opt-125m-2of4 me/opt-125m-2of4

  With an ONNX export in the folder onnx/, for yourself only:
    optimum-cli si push opt-125m-2of4 me/opt-125m-2of4 --with-onnx --private

  Propose it to a repository of others:
    optimum-cli si push opt-125m-2of4 our-team/opt-125m-2of4 --create-pr --message "Pruned to 2:4"
"""

    @classmethod
    def add_arguments(cls, parser: ArgumentParser) -> None:
        parser.add_argument("directory", type=Path, metavar="DIR", help="folder that `prune` wrote")
        parser.add_argument("repo_id", metavar="OWNER/NAME", help="repository; created where it does not exist")
        seen = parser.add_mutually_exclusive_group()
        seen.add_argument(
            "--private", action="store_const", const=True, default=None, help="a new repository is for its owner alone"
        )
        seen.add_argument(
            "--public", dest="private", action="store_const", const=False, help="a new repository is for everybody"
        )
        parser.add_argument("--revision", metavar="BRANCH", help="branch to commit to (default: main)")
        parser.add_argument("--create-pr", action="store_true", help="open a pull request instead")
        parser.add_argument("--message", dest="commit_message", metavar="TEXT", help="of the commit")
        parser.add_argument("--with-onnx", action="store_true", help="also export to onnx/ (fp32, for the CPU)")

    def execute(self, args: Namespace) -> None:
        from optimum_si.hub.push import push_folder

        commit = push_folder(
            args.directory,
            args.repo_id,
            create_pr=args.create_pr,
            with_onnx=args.with_onnx,
            **given(args, "private", "revision", "commit_message"),
        )
        print(f"pushed {args.directory} to {commit.pr_url or commit.repo_url}\n  commit: {commit.commit_url}")
