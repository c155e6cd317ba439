"""An evaluation's report as a text to send on: Markdown, or one HTML page that loads nothing.

What users and models wrote is data: it is escaped, and can neither end a table nor run anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from shared.comparison import ComparedAnswers
from shared.evaluation_report import EvaluationReport, PairFigures, Source
from shared.intervals import Interval

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]  # the header, and the rows

_TITLES: dict[Source, str] = {
    "held_out": "Held-out examples",
    "questions": "Questions",
    "general": "General knowledge",
}
_HEADER = ("Metric", "Column", "Value", "95 % interval", "Examples", "Against the baseline", "Verdict")
_SPECIAL = str.maketrans(
    {one: f"\\{one}" for one in "\\`*_{}[]#|!~"} | {"&": "&amp;", "<": "&lt;", ">": "&gt;"},
)
_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:64rem;margin:2rem auto;padding:0 1rem}"
    "table{border-collapse:collapse}td,th{border:1px solid #999;padding:.2rem .6rem;text-align:left;"
    "vertical-align:top;white-space:pre-wrap}figure{margin:1rem 0}"
)
_WIDTH, _ROW, _LEFT = 640, 22, 240  # of a plot, in pixels; the labels stand left of _LEFT


def markdown_of(name: str, report: EvaluationReport, comparisons: Sequence[ComparedAnswers] = ()) -> str:
    """The report of the evaluation `name`, with the answers of `comparisons` side by side."""
    parts = [f"# Evaluation {_md(name)}", *(_md(one) for one in _sentences(report))]
    for title, (header, rows) in _tables(report):
        parts += [f"## {title}, against {_md(report.baseline)}", _md_table(header, rows)]
    for title, (header, rows) in _answers(comparisons):
        parts += [f"## {_md(title)}", _md_table(header, rows)]
    return "\n\n".join(parts) + "\n"


def html_of(name: str, report: EvaluationReport, comparisons: Sequence[ComparedAnswers] = ()) -> str:
    """The same as a page, with a plot of the differences; it has no script and loads nothing."""
    body = [f"<h1>Evaluation {escape(name)}</h1>", *(f"<p>{escape(one)}</p>" for one in _sentences(report))]
    for title, (header, rows) in _tables(report):
        body += [f"<h2>{title}, against {escape(report.baseline)}</h2>", _html_table(header, rows)]
    for source, title in _TITLES.items():
        body += [_plot(title, pairs) for pairs in _by_metric(report, source)]
    for title, (header, rows) in _answers(comparisons):
        body += [f"<h2>{escape(title)}</h2>", _html_table(header, rows)]
    head = f'<meta charset="utf-8"><title>Evaluation {escape(name)}</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{head}</head><body>{"".join(body)}</body></html>\n'


def _sentences(report: EvaluationReport) -> Iterator[str]:
    recommendation = report.recommendation
    if recommendation is not None:
        yield f"Recommendation: {recommendation.choice}. {recommendation.summary}"
        yield from recommendation.reasons
    yield from (f"Warning: {one}" for one in report.warnings)
    yield from report.notes


def _tables(report: EvaluationReport) -> Iterator[tuple[str, Table]]:
    """One for each source that has figures; a row for each metric and column."""
    pairs = {(one.source, one.metric, one.candidate): one for one in report.pairs}
    for source, title in _TITLES.items():
        columns = [one for one in report.columns if one.source == source]
        metrics = dict.fromkeys(metric for column in columns for metric in column.figures)
        rows = [
            _row(metric, column.label, column.figures[metric], pairs.get((source, metric, column.label)))
            for metric in metrics
            for column in columns
            if metric in column.figures
        ]
        if rows:
            yield title, (_HEADER, rows)


def _row(metric: str, label: str, figure: Interval, pair: PairFigures | None) -> tuple[str, ...]:
    against = ("", "") if pair is None else (_signed(pair.difference), pair.verdict)
    return metric, label, _number(figure.value), _bounds(figure), str(figure.num_examples), *against


def _answers(comparisons: Iterable[ComparedAnswers]) -> Iterator[tuple[str, Table]]:
    """Those that have a text: of held-out pieces of documents there is a loss and nothing to read."""
    for one in comparisons:
        header = ("Example", "Question", "Wanted", one.baseline, one.candidate, str(one.metric))
        for kind, changed in (("better", one.better), ("worse", one.worse)):
            rows: list[tuple[str, ...]] = [
                (
                    str(answer.number),
                    answer.question or "",
                    answer.wanted or "",
                    answer.baseline_answer or "",
                    answer.candidate_answer or "",
                    f"{_number(answer.baseline_value)}, then {_number(answer.candidate_value)}",
                )
                for answer in changed
                if answer.question is not None
            ]
            if rows:
                yield (
                    f"{one.candidate}: {len(rows)} answers that are {kind} than those of {one.baseline}",
                    (header, rows),
                )


def _by_metric(report: EvaluationReport, source: Source) -> Iterator[list[PairFigures]]:
    for metric in dict.fromkeys(one.metric for one in report.pairs if one.source == source):
        yield [one for one in report.pairs if (one.source, one.metric) == (source, metric)]


def _plot(title: str, pairs: Sequence[PairFigures]) -> str:
    """Each candidate's difference as a dot on its interval; the upright line is no difference."""
    ends = [value for one in pairs for value in _ends(one.difference)]
    low, high = min(0.0, *ends), max(0.0, *ends)
    scale = (_WIDTH - _LEFT - 20) / ((high - low) or 1.0)
    zero, height = _LEFT + 10 - low * scale, _ROW * len(pairs) + 4
    marks = [f'<line x1="{zero:.1f}" x2="{zero:.1f}" y1="0" y2="{height}" stroke="#999"/>']
    for place, one in enumerate(pairs):
        at = _ROW * place + 13
        left, middle, right = (zero + value * scale for value in _ends(one.difference))
        marks.append(f'<text x="0" y="{at + 4}" font-size="13">{escape(one.candidate[:32])}</text>')
        marks.append(f'<line x1="{left:.1f}" x2="{right:.1f}" y1="{at}" y2="{at}" stroke="#246" stroke-width="2"/>')
        marks.append(f'<circle cx="{middle:.1f}" cy="{at}" r="4" fill="#246"/>')
    metric = escape(pairs[0].metric)
    caption = f"{title}: {metric} minus that of {escape(pairs[0].baseline)}, {_number(low)} to {_number(high)}"
    drawn = f'<svg width="{_WIDTH}" height="{height}" role="img">{"".join(marks)}</svg>'
    return f"<figure><figcaption>{caption}</figcaption>{drawn}</figure>"


def _ends(one: Interval) -> tuple[float, float, float]:
    return (one.value if one.low is None else one.low), one.value, (one.value if one.high is None else one.high)


def _number(value: float) -> str:
    return f"{value:.4g}"


def _bounds(one: Interval) -> str:
    return "" if one.low is None or one.high is None else f"{_number(one.low)} to {_number(one.high)}"


def _signed(one: Interval) -> str:
    return f"{one.value:+.4g}" + (f" ({_bounds(one)})" if _bounds(one) else "")


def _md(text: str) -> str:
    """On one line, with nothing in it that Markdown or the HTML in it would take for its own."""
    return " ".join(text.split()).translate(_SPECIAL)


def _md_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [map(_md, header), ["---"] * len(header), *(map(_md, row) for row in rows)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _html_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(one)}</th>" for one in header)
    body = "".join("<tr>" + "".join(f"<td>{escape(one)}</td>" for one in row) + "</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
