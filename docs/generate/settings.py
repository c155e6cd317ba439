"""The reference of the settings, in the groups that `shared/settings.py` puts them in."""

from __future__ import annotations

import inspect
import re

from pydantic import AliasChoices
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from cli.settings import ClientSettings
from docs.generate.markdown import code, table
from shared.settings import Settings

_GROUP = re.compile(r"^    # (?P<title>[A-Z][^.]*)$")
_FIELD = re.compile(r"^    (?P<name>[a-z_0-9]+): ")
_INTRODUCTION = """# Settings

Read from the environment, and from `.env` in the folder where a process is started; the environment wins. Every process
of an installation reads the same ones. Lists are JSON: `FINETUNED_ALLOWED_MODELS='["demo", "google/flan-t5-*"]'`.
A value that cannot be is an error that names the variable, at the start.
"""


def page() -> str:
    """Every setting, group by group."""
    parts = [_INTRODUCTION]
    for title, names in groups().items():
        parts += [f"## {title}\n", _table(Settings, names), ""]
    parts += ["## The command\n", "Read by `finetuned`, wherever it runs.\n", _table(ClientSettings, None), ""]
    return "\n".join(parts)


def groups() -> dict[str, list[str]]:
    """The settings' names below the comments that head them in the source."""
    found: dict[str, list[str]] = {}
    title = "General"
    for line in inspect.getsource(Settings).splitlines():
        if group := _GROUP.match(line):
            title = group["title"]
        elif (field := _FIELD.match(line)) and field["name"] in Settings.model_fields:
            found.setdefault(title, []).append(field["name"])
    return found


def variable(name: str, field: FieldInfo) -> str:
    """The environment's name of a setting."""
    alias = field.validation_alias
    return str(alias.choices[0]) if isinstance(alias, AliasChoices) else f"FINETUNED_{name.upper()}"


def _table(settings: type[BaseSettings], names: list[str] | None) -> str:
    fields = settings.model_fields
    rows = [
        (code(variable(name, fields[name])), _default(fields[name]), fields[name].description or "")
        for name in names or fields
    ]
    return table(("variable", "default", "what it is"), rows)


def _default(field: FieldInfo) -> str:
    default = field.default
    return code(", ".join(map(str, default)) if isinstance(default, tuple) else default)
