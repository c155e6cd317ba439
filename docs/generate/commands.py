"""The reference of the `finetuned` command, from the command itself."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from cli.errors import EXIT_CODES
from cli.main import app
from docs.generate.markdown import code, table

_ROOT = Path(__file__).parents[2]
_INTRODUCTION = """# The command

`finetuned` is a client of the HTTP API, and `finetuned up` starts the whole service. `FINETUNED_URL` names the service
to talk to and `FINETUNED_API_KEY` its key; the default is the local stack. Every command but `up` takes `--json`: then
standard output holds JSON and nothing else; progress and remarks go to standard error. Where there is no terminal there
are no colours and nothing is drawn over. `finetuned --install-completion` lets the shell complete commands, and names
and ids that the service knows.
"""


def page() -> str:
    """Every command with its arguments and options."""
    root: Any = typer.main.get_command(app)
    codes = table(("exit code", "what it means"), EXIT_CODES.items()) + "\n"
    return "\n".join([_INTRODUCTION, codes, *_sections(root, "finetuned")])


def _sections(group: Any, prefix: str) -> Iterator[str]:
    for name, command in group.commands.items():
        if command.hidden:
            continue
        yield f"## `{prefix} {name}`\n" if prefix == "finetuned" else f"### `{prefix} {name}`\n"
        yield " ".join(str(command.help or "").split()) + "\n"
        if hasattr(command, "commands"):
            yield from _sections(command, f"{prefix} {name}")
        else:
            yield from _parameters(command)


def _parameters(command: Any) -> Iterator[str]:
    rows = [(code(_name(one)), _type(one), _default(one), one.help or "") for one in command.params if not one.hidden]
    if rows:
        yield table(("argument or option", "type", "default", "what it is"), rows) + "\n"


def _name(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        return str(parameter.metavar or parameter.name.upper())
    return ", ".join([*parameter.opts, *parameter.secondary_opts])


def _type(parameter: Any) -> str:
    if getattr(parameter, "is_flag", False):
        return ""
    return code(re.sub(r"^<(.*)>$", r"\1", str(parameter.display_type(None))))


def _default(parameter: Any) -> str:
    if parameter.required:
        return "required"
    is_empty = getattr(parameter, "is_flag", False) or parameter.default in (None, ())
    default = parameter.default
    if isinstance(default, Path) and default.is_relative_to(_ROOT):
        default = default.relative_to(_ROOT)
    return "–" if is_empty or callable(default) else code(default)
