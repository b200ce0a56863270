"""Any words after ``optimum-cli si``: help, one line of error, or done; never a traceback."""

import contextlib
import io
import os
import sys
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from optimum.commands.optimum_cli import main
from support.fuzzing import fuzzed


VERBS = [
    "prune",
    "induce",
    "recover",
    "evaluate",
    "export",
    "check",
    "report",
    "inspect",
    "push",
    "benchmark",
    "demo",
    "",
    "pruen",
]
FLAGS = """
    -m --model --dataset -o --output --overwrite --method --sparsity --pattern --preset --config --include --exclude
    --stack --stacks --min-expert-tokens --target-column
    --no-induction --epochs --seed --num-samples --sequence-length --batch-size --damping --recovery-epochs
    --reconstruction --repair --allocation --device --dtype --gguf-file --tokenizer --json --values --weights --opset
    --verbose --minutes --limit --debug --no-pictures --threads --prompt --trust-remote-code --help --unknown -x --
""".split()
WORDS = [
    *"wanda 2:4 0.5 -1 nan inf 1e400 ٣ 1_0 0x1 fast none missing cpu cuda:99 int8 sparse".split(),
    *"/nonexistent . .. ~ / /dev/null /proc/self/environ * [".split(),
    *("", " ", "\x1b[31m", "\udc80", "a\nb", "x" * 300, "--", "9" * 400),
]
WORD = st.sampled_from(FLAGS) | st.sampled_from(WORDS) | st.text(max_size=6)
#: These take what they find in the working directory, or train for minutes.
SLOW = {"demo", "benchmark"}


@fuzzed
@given(st.sampled_from(VERBS), st.lists(WORD, max_size=7))
def test_any_words_end_in_help_a_line_or_a_result(tmp_path_factory, verb, words):
    folder = tmp_path_factory.mktemp("here")
    if verb in SLOW and "--help" not in words:
        words = [*words, "--unknown"]
    out, errors = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["optimum-cli", "si", verb, *words]),
        mock.patch.dict(os.environ, HOME=str(tmp_path_factory.mktemp("home"))),
        contextlib.chdir(folder),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(errors),
    ):
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code if isinstance(stop.code, int) else 1
    said = errors.getvalue()
    assert code in (0, 1, 2), (code, said)
    assert "--debug" in words or "Traceback" not in said, said
    if code:
        assert said.strip()
        last = said.strip().splitlines()[-1]
        assert "(--debug shows the traceback)" not in last, last  # what nobody foresaw
    assert not list(folder.iterdir())
