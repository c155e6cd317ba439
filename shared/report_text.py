"""An evaluation's report as Markdown, and as one HTML file that loads nothing and runs nothing.

Both are written from the same parts. Whatever users wrote, or a model, is text in both, never markup.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape

from shared.comparison import ChangedAnswer, ComparedAnswers
from shared.evaluation_report import METRICS, ColumnFigures, EvaluationReport, PairFigures, Source
from shared.intervals import ENOUGH_EXAMPLES, Interval

MOST_CHARACTERS = 600  # of a question or an answer
TITLES: dict[Source, str] = {
    "held_out": "Held-out examples",
    "questions": "Questions",
    "general": "General knowledge (what was forgotten)",
}
HOW_TO_READ = (
    "Beside each figure: where it lies with 95 % confidence, and the number of examples (n).",
    "Pairs are compared example by example. Where the interval of a difference crosses zero, no difference is shown: "
    "that is not the same as equal.",
    f"Fewer than {ENOUGH_EXAMPLES} examples are too few for a verdict.",
    "Each interval stands for itself: of twenty that compare equals, one misses zero on average.",
)


@dataclass(frozen=True)
class _Metric:
    name: str
    format: Callable[[float], str]


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"


def _figure(value: float) -> str:
    return f"{value:.3f}"


def _point(value: float) -> str:
    return f"{value:.1f}"


def _milliseconds(value: float) -> str:
    return f"{value:.0f} ms"


_METRICS = {
    "loss": _Metric("Loss", _figure),
    "token_accuracy": _Metric("Token accuracy", _share),
    "exact_match": _Metric("Exact match", _share),
    "f1": _Metric("Token F1", _figure),
    "rouge_l": _Metric("ROUGE-L", _figure),
    "chrf": _Metric("chrF", _point),
    "bleu": _Metric("BLEU", _point),
    "judged": _Metric("Judged better", _share),
    "repetition": _Metric("Repetition", _share),
    "truncated": _Metric("Cut off", _share),
    "length": _Metric("Length, tokens", _point),
    "latency_ms": _Metric("Latency", _milliseconds),
    "tokens_per_second": _Metric("Tokens per second", _point),
    "prompt_tokens": _Metric("Prompt tokens", _point),
    "perplexity": _Metric("Perplexity", _figure),
    "corpus_bleu": _Metric("BLEU over all answers", _point),
    "corpus_chrf": _Metric("chrF over all answers", _point),
}


# The parts of a report, which know neither Markdown nor HTML.


@dataclass(frozen=True)
class _Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class _Sentences:
    items: Sequence[str]
    is_list: bool = True
    is_warning: bool = False


@dataclass(frozen=True)
class _Table:
    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    is_text: bool = False


@dataclass(frozen=True)
class _Plot:
    """Figures with their intervals on one scale; only where there is room for drawings."""

    metric: str
    figures: Sequence[tuple[str, Interval]]


_Part = _Heading | _Sentences | _Table | _Plot


def markdown_of(name: str, report: EvaluationReport, comparisons: Sequence[ComparedAnswers] = ()) -> str:
    """The report of the evaluation `name` with the answers of `comparisons` side by side, in GitHub's Markdown."""
    return "\n\n".join(text for part in _parts(name, report, comparisons) if (text := _markdown(part))) + "\n"


def html_of(name: str, report: EvaluationReport, comparisons: Sequence[ComparedAnswers] = ()) -> str:
    """The report as a page of its own, with plots; light or dark as the reader's browser is."""
    body = "\n".join(_html(part) for part in _parts(name, report, comparisons))
    return _PAGE.format(title=escape(_title(name)), style=_STYLE, body=body)


def _parts(name: str, report: EvaluationReport, comparisons: Sequence[ComparedAnswers]) -> Iterator[_Part]:
    yield _Heading(_title(name), 1)
    if report.recommendation is not None:
        yield _Heading("Recommendation")
        yield _Sentences([report.recommendation.summary], is_list=False)
        yield _Sentences(report.recommendation.reasons)
    if report.warnings:
        yield _Heading("Warnings")
        yield _Sentences(report.warnings, is_warning=True)
    for source, title in TITLES.items():
        yield from _figures_of_source(report, source, title)
    yield from _costs(report)
    yield from _changes(comparisons)
    if report.notes:
        yield _Heading("Notes")
        yield _Sentences(report.notes)
    if report.judge:
        yield _Heading("The judge")
        yield _Sentences([f"{name.replace('_', ' ')}: {value}" for name, value in report.judge.items()])
    yield _Heading("How to read the figures")
    yield _Sentences(HOW_TO_READ)


def _title(name: str) -> str:
    return f"Evaluation {name}"


def _figures_of_source(report: EvaluationReport, source: Source, title: str) -> Iterator[_Part]:
    columns = [one for one in report.columns if one.source == source]
    if not any(one.figures or one.num_failed for one in columns):
        return
    yield _Heading(title)
    yield _Table(["", *(one.label for one in columns)], list(_figure_rows(columns)))
    for metric in METRICS:
        figures = [(one.label, one.figures[metric]) for one in columns if metric in one.figures]
        if len(figures) > 1:
            yield _Plot(metric, figures)
    pairs = [one for one in report.pairs if one.source == source]
    if pairs:
        yield _Heading(f"{title}: beside {report.baseline}", 3)
        yield _Table(["", "", "difference", "verdict"], [_pair_row(one) for one in pairs])


def _figure_rows(columns: Sequence[ColumnFigures]) -> Iterator[list[str]]:
    for metric in METRICS:
        if any(metric in one.figures for one in columns):
            cells = (_interval_words(metric, one.figures.get(metric)) for one in columns)
            yield [_metric(metric).name, *cells]
    for metric in dict.fromkeys(name for one in columns for name in one.corpus):
        cells = (_metric(metric).format(one.corpus[metric]) if metric in one.corpus else "–" for one in columns)
        yield [_metric(metric).name, *cells]
    if any(one.num_failed for one in columns):
        yield ["Failed", *(str(one.num_failed) for one in columns)]


def _interval_words(metric: str, interval: Interval | None) -> str:
    if interval is None:
        return "–"
    written = _metric(metric).format
    if interval.low is None or interval.high is None:
        return f"{written(interval.value)} (n = {interval.num_examples})"
    return (
        f"{written(interval.value)} ({written(interval.low)} to {written(interval.high)}; n = {interval.num_examples})"
    )


def _pair_row(pair: PairFigures) -> list[str]:
    signed = pair.difference
    return [pair.candidate, _metric(pair.metric).name, _difference_words(pair.metric, signed), _verdict_words(pair)]


def _difference_words(metric: str, interval: Interval) -> str:
    def signed(value: float) -> str:
        return ("+" if value > 0 else "") + _metric(metric).format(value)

    ends = (
        "" if interval.low is None or interval.high is None else f"{signed(interval.low)} to {signed(interval.high)}; "
    )
    return f"{signed(interval.value)} ({ends}n = {interval.num_examples})"


def _verdict_words(pair: PairFigures) -> str:
    if pair.verdict == "too few examples":
        return f"too few examples ({pair.difference.num_examples} of {ENOUGH_EXAMPLES})"
    return pair.verdict


def _costs(report: EvaluationReport) -> Iterator[_Part]:
    names = list(dict.fromkeys(name for costs in report.costs.values() for name in costs))
    if names:
        yield _Heading("Costs")
        header = ["", *(name.replace("_", " ") for name in names)]
        rows = [
            [label, *(f"{costs[name]:,.1f}" if name in costs else "–" for name in names)]
            for label, costs in report.costs.items()
        ]
        yield _Table(header, rows)


def _changes(comparisons: Sequence[ComparedAnswers]) -> Iterator[_Part]:
    if comparisons:
        yield _Heading("Answers that changed")
    for one in comparisons:
        if one.metric is None or one.source is None:
            yield _Sentences([f"{one.candidate}: no example has figures of both columns."], is_list=False)
            continue
        for words, changed in (("better", one.better), ("worse", one.worse)):
            yield _Heading(
                f"{one.candidate}: got {words} ({_metric(one.metric).name}, {TITLES[one.source].lower()})", 3
            )
            # Of held-out pieces of documents there is a loss and nothing to read.
            told = [_changed_row(one.metric, answer) for answer in changed if answer.question is not None]
            if told:
                yield _Table(["", "question", "wanted", one.baseline, one.candidate], told, is_text=True)
            else:
                yield _Sentences(["Examples without a text to show." if changed else "None."], is_list=False)


def _changed_row(metric: str, one: ChangedAnswer) -> list[str]:
    written = _metric(metric).format
    return [
        str(one.number),
        _shortened(one.question),
        _shortened(one.wanted),
        f"{_shortened(one.baseline_answer)} ({written(one.baseline_value)})",
        f"{_shortened(one.candidate_answer)} ({written(one.candidate_value)})",
    ]


def _shortened(text: str | None) -> str:
    if text is None:
        return "–"
    return text if len(text) <= MOST_CHARACTERS else f"{text[:MOST_CHARACTERS]}…"


def _metric(name: str) -> _Metric:
    return _METRICS.get(name) or _Metric(name.replace("_", " "), _figure)


# Markdown

# What begins markup or a link within a line, and what begins a list, a heading or a rule before it.
_INLINE = re.compile(r"[\\`*_\[\]|~$!]|:(?=//)|@(?=[\w-]+\.)|(?<=www)\.", re.IGNORECASE)
_FIRST = re.compile(r"^(\d*)([.)#+=-])(?=\s|$|[#+=-])")


def _markdown(part: _Part) -> str:
    match part:
        case _Heading(text, level):
            return f"{'#' * level} {_plain(text)}"
        case _Sentences(items, is_list):
            return "\n".join(f"{'- ' if is_list else ''}{_plain(item)}" for item in items)
        case _Table(header, rows):
            lines = [header, ["---"] * len(header), *rows]
            cells = ([cell if line is lines[1] else _plain(cell) for cell in line] for line in lines)
            return "\n".join(f"| {' | '.join(line)} |" for line in cells)
        case _Plot():
            return ""


def _plain(text: str) -> str:
    """As text and nothing else, on one line: no markup, no HTML, no link that a renderer makes by itself."""
    line = escape(" ".join(text.split()), quote=False)
    return _FIRST.sub(r"\1\\\2", _INLINE.sub(r"\\\g<0>", line))


# HTML


def _html(part: _Part) -> str:
    match part:
        case _Heading(text, level):
            return f"<h{level}>{escape(text)}</h{level}>"
        case _Sentences(items, is_list, is_warning):
            if not is_list:
                return "".join(f"<p>{escape(item)}</p>" for item in items)
            kind = ' class="warning"' if is_warning else ""
            return f"<ul{kind}>{''.join(f'<li>{escape(item)}</li>' for item in items)}</ul>"
        case _Table():
            return _html_table(part)
    return _html_plot(part)


def _html_table(table: _Table) -> str:
    head = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in table.header)
    rows = (
        f'<tr><th scope="row">{escape(first)}</th>{"".join(f"<td>{escape(cell)}</td>" for cell in cells)}</tr>'
        for first, *cells in table.rows
    )
    kind = ' class="texts"' if table.is_text else ""
    return (
        f'<div class="wide" tabindex="0"><table{kind}><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _html_plot(plot: _Plot) -> str:
    """A dot and a bar a row; its words stand beside it, so that nothing is in the drawing alone."""
    place = _scale([interval for _, interval in plot.figures])
    rows = "".join(
        f"<li><span>{escape(label)}</span>{_html_dot(interval, place)}"
        f"<span>{escape(_interval_words(plot.metric, interval))}</span></li>"
        for label, interval in plot.figures
    )
    direction = {True: ", more is better", False: ", less is better", None: ""}[METRICS.get(plot.metric)]
    title = f"{_metric(plot.metric).name}{direction}"
    return f"<figure><figcaption>{escape(title)}</figcaption><ul>{rows}</ul></figure>"


def _html_dot(interval: Interval, place: Callable[[float], str]) -> str:
    bar = ""
    if interval.low is not None and interval.high is not None:
        bar = f'<line class="bar" x1="{place(interval.low)}" x2="{place(interval.high)}" y1="12" y2="12"/>'
    return (
        '<svg aria-hidden="true"><line class="track" x1="0" x2="100%" y1="12" y2="12"/>'
        f'{bar}<circle cx="{place(interval.value)}" cy="12" r="5"/></svg>'
    )


def _scale(intervals: Sequence[Interval]) -> Callable[[float], str]:
    ends = [end for one in intervals for end in (one.value, one.low, one.high) if end is not None]
    low, high = min(ends), max(ends)
    room = (high - low) or abs(high) or 1.0
    start, width = low - 0.05 * room, 1.1 * room
    return lambda value: f"{100 * (value - start) / width:.2f}%"


_STYLE = """
:root { color-scheme: light dark; --text: #1b1f24; --muted: #57606a; --line: #d0d7de; --page: #fff;
  --dot: #3451b2; --warn: #9a6700; }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6edf3; --muted: #9aa4af; --line: #3d444d; --page: #15181d; --dot: #9db2ff; --warn: #e3b341; }
}
body { font: 15px/1.5 system-ui, sans-serif; color: var(--text); background: var(--page);
  max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1, h2, h3, td, th, li, p { overflow-wrap: anywhere; }
h2 { margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: 0.875rem; font-variant-numeric: tabular-nums; }
td, th { border-bottom: 1px solid var(--line); padding: 0.375rem 0.75rem; text-align: left;
  vertical-align: top; min-width: 5rem; }
th { font-weight: 600; }
.texts { width: 100%; table-layout: fixed; min-width: 50rem; }
.texts th:first-child { width: 3rem; min-width: 0; }
.texts td { white-space: pre-wrap; }
.warning li { color: var(--warn); font-weight: 600; }
figure { display: inline-block; width: 36rem; max-width: 100%; margin: 1rem 1rem 0 0; }
figcaption { font-weight: 600; }
figure ul { list-style: none; margin: 0; padding: 0; font-size: 0.8125rem; }
figure li { display: grid; grid-template-columns: 1fr 1.2fr 2.2fr; gap: 0.75rem; align-items: center; }
figure li > :last-child { color: var(--muted); font-variant-numeric: tabular-nums; }
svg { display: block; width: 100%; height: 24px; overflow: visible; }
.track { stroke: var(--line); }
.bar { stroke: var(--dot); stroke-width: 3; stroke-linecap: round; }
circle { fill: var(--dot); }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
{body}
</main>
</body>
</html>
"""
