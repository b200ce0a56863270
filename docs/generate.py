"""Write what the documentation takes from the code: the tables of options in ``reference.md``, and ``api.md``.

Run it after an option, a public signature or its docstring has changed::

    python docs/generate.py
"""

import inspect
import re
from pathlib import Path
from typing import Any

import optimum_si
from optimum_si.config.fields import Option, options
from optimum_si.config.groups import CalibrationConfig, InductionConfig
from optimum_si.config.recipe import Recipe
from optimum_si.config.recovery import RecoveryConfig


DOCS = Path(__file__).parent
TABLES = {
    "SIConfig": Recipe,
    "InductionConfig": InductionConfig,
    "CalibrationConfig": CalibrationConfig,
    "RecoveryConfig": RecoveryConfig,
}
#: Columns of a signature that stands on one line.
WIDTH = 100


def generated() -> dict[Path, str]:
    """What each generated page should hold."""
    reference = DOCS / "reference.md"
    return {reference: with_tables(reference.read_text(encoding="utf-8")), DOCS / "api.md": api()}


def with_tables(page: str) -> str:
    """The page with its tables of options as the code has them, each between two markers."""
    for name, configuration in TABLES.items():
        begin, end = f"<!-- options of {name}: written by docs/generate.py -->\n", "<!-- end -->"
        before, found, rest = page.partition(begin)
        _, closed, after = rest.partition(end)
        assert found and closed, f"reference.md has no place for the options of {name}"
        page = f"{before}{begin}{table(configuration)}{end}{after}"
    return page


def table(configuration: type) -> str:
    """The options of a configuration, one in each row."""
    rows = ["| option | default | flag | meaning |", "|---|---|---|---|"]
    return "\n".join([*rows, *map(row, options(configuration).values()), ""])


def row(option: Option) -> str:
    """An option with its default, its flag and its meaning."""
    default = f'"{option.default}"' if isinstance(option.default, str) else repr(option.default)
    flag = f"`{option.flag}`" if option.has_flag else ""
    more = f"; [more]({option.see})" if option.see else ""
    meaning = option.meaning.rstrip(".").replace("|", "\\|")
    return f"| `{option.name}` | `{default}` | {flag} | {meaning}{more} |"


def api() -> str:
    """The page of public names, in the order in which the package lists them."""
    names = [name for name in optimum_si.__all__ if not name.startswith("__")]
    intro = "Every public name of `optimum_si`, from its docstrings. `python docs/generate.py` writes this page."
    return "\n\n".join(["# Python API", intro, *(described(name, getattr(optimum_si, name)) for name in names)]) + "\n"


def described(name: str, value: Any) -> str:
    """A class with its methods and properties, or a function."""
    if not inspect.isclass(value):
        return f"## {name}\n\n{signature(name, value)}\n\n{markdown(value)}"
    if issubclass(value, Exception):
        return f"## {name}\n\nSubclass of `{value.__base__.__name__}`. {markdown(value)}"
    parts = [f"## {name}", signature(name, value), markdown(value)]
    if bases := public_bases(value):
        parts.append(f"Has everything that {' and '.join(f'`{base.__name__}`' for base in bases)} has.")
    for member, found in members(value).items():
        if isinstance(found, property):
            parts += [f"### {name}.{member}", markdown(found)]
        else:
            parts += [f"### {name}.{member}()", signature(member, getattr(value, member)), markdown(found)]
    return "\n\n".join(parts)


def public_bases(cls: type) -> list[type]:
    """The bases of a class that the page describes too."""
    return [base for base in cls.__mro__[1:] if base.__name__ in optimum_si.__all__]


def members(cls: type) -> dict[str, Any]:
    """Public methods and properties that a class has from this package and not from a public base."""
    found: dict[str, Any] = {}
    elsewhere = {inherited for base in public_bases(cls) for inherited in base.__mro__}
    for base in reversed(cls.__mro__):
        if base.__module__.startswith("optimum_si") and base not in elsewhere:
            found |= {name: member for name, member in vars(base).items() if not name.startswith("_")}
    kinds = (property, classmethod, staticmethod)
    return {
        name: member
        for name, member in found.items()
        if (isinstance(member, kinds) or inspect.isfunction(member)) and inspect.getdoc(member)
    }


def signature(name: str, value: Any) -> str:
    """A call as a code block, without what types repeat, on as many lines as it needs."""
    called = inspect.signature(value)
    known = [entry for entry in called.parameters.values() if entry.name != "self"]
    text = str(called.replace(parameters=known))
    text = re.sub(r"\b(?:\w+\.)+(?=[A-Z])", "", text)  # modules of classes
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", text)  # annotations written as text
    text = text.replace(repr(optimum_si.__version__), "__version__")
    if len(name + text) > WIDTH:
        inside, _, result = text[1:].rpartition(") -> ")
        lines = [f"    {part},\n" for part in split(inside)]
        text = f"(\n{''.join(lines)}) -> {result}"
    return f"```\n{name}{text}\n```"


def split(arguments: str) -> list[str]:
    """Arguments apart, at commas that stand within no brackets."""
    parts, depth = [""], 0
    for character in arguments:
        depth += (character in "[({") - (character in "])}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts]


def markdown(value: Any) -> str:
    """A docstring as Markdown: its sections become lists."""
    lines = []
    text = re.sub(r":\w+:`~?(?:[\w.]*\.)?(\w+)`", r"`\1`", inspect.getdoc(value) or "").replace("``", "`")
    section = ""
    for line in text.splitlines():
        heading = re.fullmatch(r"(Args|Attributes|Returns|Raises|Yields):", line)
        entry = re.fullmatch(r"    (\*{0,2}\w+(?:, \w+)*): (.*)", line)
        if heading:
            section = heading[1]
            lines += [f"{'Arguments' if section == 'Args' else section}:", ""]
        elif section and entry:
            lines.append(f"- `{entry[1].replace(', ', '`, `')}`: {entry[2]}")
        elif section and line.startswith("     "):
            lines.append(f"  {line.strip()}")
        else:
            lines.append(line.strip() if section else line)
    return "\n".join(lines).strip()


if __name__ == "__main__":
    for page, text in generated().items():
        page.write_text(text, encoding="utf-8")
