"""Stands in for `docker compose`: fails where a line names a command, a file, a profile or a service that is not."""

from __future__ import annotations

import sys
from pathlib import Path

import yaml

COMMANDS = ("up", "down", "build", "start", "stop", "exec", "run")
OF_ONE = ("exec", "run")  # what follows the service is a command within it
TAKES_A_VALUE = ("-f", "--profile", "--scale")


def complaint(arguments: list[str]) -> str | None:
    """What is wrong with a line, or None."""
    words: list[str] = []
    given: dict[str, list[str]] = {}
    pending = list(arguments)
    while pending:
        word = pending.pop(0)
        if word in TAKES_A_VALUE:
            given.setdefault(word, []).append(pending.pop(0))
        elif not word.startswith("-"):
            words.append(word)
            if len(words) == 2 and words[0] in OF_ONE:
                break
    services = _services(given.get("-f", ["docker-compose.yml"]))
    named = {*words[1:], *(scale.partition("=")[0] for scale in given.get("--scale", ()))}
    profiles = {profile for service in services.values() for profile in service.get("profiles", ())}
    if not words or words[0] not in COMMANDS:
        return f"no such command: {words[:1]}"
    if not named <= set(services):
        return f"no such service: {named - set(services)}"
    if not set(given.get("--profile", ())) <= profiles:
        return f"no such profile: {given['--profile']}"
    return None


def _services(files: list[str]) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = {}
    for name in files:
        for service, content in yaml.safe_load(Path(name).read_text(encoding="utf-8"))["services"].items():
            found.setdefault(service, {}).update(content)
    return found


if __name__ == "__main__":
    sys.exit(complaint(sys.argv[1:]))
