"""What the demo prints at its end: some answers before and after, and the figures."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text

from cli.demo.handbook import Handbook
from cli.demo.run import Outcome
from shared.answer_texts import is_exact_match

_SHOWN_SEEN = 8
_SHOWN_UNSEEN = 3
_LONGEST = 90  # characters of an answer that are shown


def print_report(console: Console, handbook: Handbook, outcome: Outcome) -> None:
    console.print()
    console.print(_answers(handbook, outcome))
    console.print()
    console.print(_figures(outcome))


def _answers(handbook: Handbook, outcome: Outcome) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 1, 0), header_style="bold")
    table.add_column("QUESTION", ratio=4)
    table.add_column("BASE MODEL", ratio=4)
    table.add_column("TUNED", ratio=3)
    table.add_column("RIGHT?", no_wrap=True, min_width=6)
    for index in _shown(handbook):
        question, tuned = handbook.questions[index], outcome.tuned_answers[index]
        is_right = is_exact_match(tuned, question.answer)
        verdict = Text("yes", style="green") if is_right else Text("no", style="red" if question.seen else "yellow")
        asked = question.question if question.seen else f"{question.question} (not in the training data)"
        table.add_row(Text(asked), Text(_short(outcome.base_answers[index])), Text(_short(tuned)), verdict)
    return table


def _shown(handbook: Handbook) -> list[int]:
    """Some questions, spread over the list."""
    shown = []
    for seen, limit in ((True, _SHOWN_SEEN), (False, _SHOWN_UNSEEN)):
        indices = [index for index, one in enumerate(handbook.questions) if one.seen == seen]
        shown += indices[:: max(1, len(indices) // limit)][:limit]
    return shown


def _figures(outcome: Outcome) -> Table:
    figures = outcome.figures
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for name in ("", "BASE MODEL", "TUNED"):
        table.add_column(name)
    table.add_row("Exact answers, learned from", str(figures.base_seen), str(figures.tuned_seen))
    table.add_row("Exact answers, never seen", str(figures.base_unseen), str(figures.tuned_unseen))
    change = f"{figures.tuned_loss:.3f} ({-100 * figures.loss_reduction:+.0f} %)"
    table.add_row("Held-out loss", f"{figures.base_loss:.3f}", change)
    table.add_row("Start of the stack", f"{figures.ready_seconds:.1f} s")
    table.add_row("Setup and training", "", f"{figures.training_seconds:.1f} s")
    table.add_row("Training's end to first answer", "", f"{figures.first_answer_seconds:.2f} s at most")
    table.add_row("Whole demo", f"{figures.total_seconds:.1f} s")
    return table


def _short(text: str) -> str:
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"
