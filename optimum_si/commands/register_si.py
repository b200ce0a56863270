"""The wheel holds this file as ``optimum/commands/register/register_si.py``, where optimum-cli looks for commands."""

from .si import SICommand


REGISTER_COMMANDS = [SICommand]
