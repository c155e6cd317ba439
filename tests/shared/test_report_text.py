"""An evaluation's report as Markdown and as a page of its own: whole, and safe whatever rows hold."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

import pytest

from shared import report_text
from shared.comparison import compared, figures_of, pairs_of
from shared.evaluation_parameters import Column
from shared.evaluation_report import EvaluationReport, ExampleAnswer, ExampleRow, Recommendation
from shared.report_text import MOST_CHARACTERS

HOSTILE = (
    "<script>alert(1)</script> [x](javascript:alert(2)) ![y](http://evil.example/a.png) | `code`\n\n# www.evil.example"
)
COLUMNS = (Column(), Column(adapter="handbook", version=2))
LABELS = [one.label for one in COLUMNS]


def rows_of(count: int, text: str = "answer") -> list[ExampleRow]:
    """Examples of which every third got worse and the others better."""
    return [
        ExampleRow(
            number=number,
            source="questions",
            question=f"question {number} {text}",
            wanted=text,
            answers={
                "base": ExampleAnswer(text=text, metrics={"f1": 0.5, "latency_ms": 100.0 + number}),
                "handbook@2": ExampleAnswer(
                    text=text, metrics={"f1": 0.4 if number % 3 == 0 else 0.6 + number / 1000, "latency_ms": 100.0}
                ),
            },
        )
        for number in range(count)
    ]


def report_of(rows: list[ExampleRow], words: str = "words") -> EvaluationReport:
    reasons = ("first, because",)
    return EvaluationReport(
        baseline="base",
        columns=figures_of(COLUMNS, rows),
        pairs=pairs_of("base", LABELS, rows),
        notes=(f"a note: {words}",),
        warnings=(f"a warning: {words}",),
        costs={"handbook@2": {"training_seconds": 125.0}},
        judge={"model": words},
        recommendation=Recommendation(choice="tune", summary=f"Tune: {words}", reasons=reasons, metric="f1"),
    )


def markdown_of(report: EvaluationReport, rows: list[ExampleRow]) -> str:
    return report_text.markdown_of("eval-1", report, [compared(rows, *LABELS)])


def html_of(report: EvaluationReport, rows: list[ExampleRow]) -> str:
    return report_text.html_of("eval-1", report, [compared(rows, *LABELS)])


class Page(HTMLParser):
    """The tags of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes |= {name for name, _ in attrs}
        if tag not in ("meta", "line", "circle"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("line", "circle"):
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("written", [markdown_of, lambda report, rows: Page(html_of(report, rows)).text])
def test_the_report_has_all_parts(written) -> None:  # type: ignore[no-untyped-def]
    rows = rows_of(40)
    text = written(report_of(rows), rows)
    for part in (
        "Tune: words",
        "first, because",
        "a warning: words",
        "a note: words",
        "model: words",
        "125.0",
        "better",
    ):
        assert part in text, part
    assert re.search(r"0\.500 \(0\.500 to 0\.500; n = 40\)", text)
    assert "handbook@2: got better (Token F1, questions)" in text


@pytest.mark.parametrize("count", [30, 33])
def test_ten_answers_that_got_better_and_ten_that_got_worse_are_shown(count: int) -> None:
    rows = rows_of(count)
    text = markdown_of(report_of(rows), rows)
    better, worse = text.split("got better")[1].split("got worse")
    numbers = [[int(one) for one in re.findall(r"^\| (\d+) \|", part, re.MULTILINE)] for part in (better, worse)]
    assert numbers[0] == [number for number in range(count - 1, -1, -1) if number % 3][:10]
    assert numbers[1] == [number for number in range(count) if number % 3 == 0][:10]


def test_too_few_examples_are_said_with_their_number() -> None:
    rows = rows_of(12)
    assert "too few examples (12 of 20)" in markdown_of(report_of(rows), rows)
    assert "too few examples (12 of 20)" in html_of(report_of(rows), rows)


def test_no_change_is_said() -> None:
    rows = rows_of(1)
    assert re.search(r"got better .*\n\nNone\.", markdown_of(report_of(rows), rows))


def test_a_report_without_examples_can_be_read() -> None:
    report = EvaluationReport(baseline="base", columns=(), pairs=())
    assert markdown_of(report, []).startswith("# Evaluation eval-1\n")
    assert "no example has figures of both columns" in html_of(report, [])


def test_the_page_runs_nothing_and_loads_nothing_whatever_rows_hold() -> None:
    rows = rows_of(24, HOSTILE)
    page = Page(html_of(report_of(rows, HOSTILE), rows))
    assert page.open == []
    assert not page.tags.keys() & {"script", "img", "a", "iframe", "link", "object", "form"}
    assert not {one for one in page.attributes if one.startswith("on")} | (page.attributes & {"src", "href"})
    assert "<script>alert(1)</script>" in page.text


def test_nothing_in_rows_is_markup_in_markdown() -> None:
    rows = rows_of(24, HOSTILE)
    text = markdown_of(report_of(rows, HOSTILE), rows)
    assert "<script" not in text
    assert not re.search(r"(?<!\\)[\[\]`]", text)
    assert not re.search(r"https?://|www\.", text)
    assert all(line.startswith(("#", "|", "-", "Tune", "")) for line in text.splitlines())
    widths = {line.count("|") - line.count(r"\|") for line in text.splitlines() if re.match(r"\| \d+ \|", line)}
    assert widths == {6}


@pytest.mark.parametrize("text", ["# heading", "- item", "1. item", "---", "=", "+ item"])
def test_what_begins_a_line_begins_no_block(text: str) -> None:
    report = EvaluationReport(baseline="base", columns=(), pairs=(), notes=(text,))
    (line,) = [line for line in markdown_of(report, []).splitlines() if line.replace("\\", "") == f"- {text}"]
    assert "\\" in line


def test_long_answers_are_cut() -> None:
    rows = rows_of(3, "x" * 10 * MOST_CHARACTERS)
    for text in (markdown_of(report_of(rows), rows), html_of(report_of(rows), rows)):
        assert "x" * MOST_CHARACTERS not in text.replace("x" * MOST_CHARACTERS + "…", "")


def test_each_metric_of_several_columns_has_a_plot() -> None:
    rows = rows_of(24)
    page = Page(html_of(report_of(rows), rows))
    assert (page.tags["figure"], page.tags["svg"], page.tags["circle"]) == (2, 4, 4)
