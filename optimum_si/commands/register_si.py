"""The wheel holds this file as ``optimum/commands/register/register_si.py``, where optimum-cli looks for commands."""

# Absolute, although a sibling: in the wheel this file lies in another package.
from optimum_si.commands.si import SICommand


REGISTER_COMMANDS = [SICommand]
