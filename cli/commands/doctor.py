"""`finetuned doctor`: whether database, data folder and Redis agree, and repairing what does not."""

from __future__ import annotations

from textwrap import wrap
from typing import Annotated

import typer

from cli.client import Json
from cli.commands.options import AsJson, open_client
from cli.output import console, print_json, print_line

_INDENT = 10


def doctor(
    is_fixing: Annotated[bool, typer.Option("--fix", help="Repair what can be repaired.")] = False,
    is_deep: Annotated[bool, typer.Option("--deep", help="Compare every byte with its sum; reads all files.")] = False,
    as_json: AsJson = False,
) -> None:
    """Check database, files and Redis against each other, and repair with --fix."""
    with open_client() as client:
        report = client.doctor(is_fixing=is_fixing, is_deep=is_deep)
    if as_json:
        print_json(report)
    else:
        _show(report, is_fixing=is_fixing)
    if not report["healthy"]:
        raise typer.Exit(1)


def _show(report: Json, *, is_fixing: bool) -> None:
    for finding in report["findings"]:
        _show_finding(finding)
    found, repaired = len(report["findings"]), sum(one["repaired"] for one in report["findings"])
    if not found:
        print_line("Everything matches.")
        return
    fixable = sum(one["fix"] is not None and not one["repaired"] for one in report["findings"])
    advice = f" `finetuned doctor --fix` repairs {fixable}." if fixable and not is_fixing else ""
    print_line(f"{found} found, {repaired} repaired, {found - repaired} left.{advice}")


def _show_finding(finding: Json) -> None:
    """A line that names it, and below it what it means and what becomes of it: sentences fit into no column."""
    if finding["repaired"]:
        mark, after = "repaired", finding["outcome"]
    else:
        mark = finding["severity"]
        after = finding["outcome"] or (f"--fix: {finding['fix']}" if finding["fix"] else "A person has to decide.")
    print_line(f"{mark:<9} {finding['code']}  {finding['subject']}")
    for sentence in (finding["detail"], after):
        for line in wrap(sentence, width=console().width - _INDENT):
            print_line(" " * _INDENT + line)
