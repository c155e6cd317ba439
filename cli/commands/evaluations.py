"""`finetuned evaluate`, `evaluations`, `compare`: whether a version is any better, and where."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from cli.client import Client, Json, check_accepted
from cli.commands.completion import adapter_names
from cli.commands.options import AdapterName, AsJson, NumRows, given, open_client
from cli.errors import INTERRUPTED, CommandError
from cli.following import follow, succeeded, view_for
from cli.output import figure, note, one_line, print_json, print_line, print_paragraph, print_table, when

# Metrics of the table, in its order; --json and --report have all.
SHOWN = ("loss", "token_accuracy", "exact_match", "f1", "rouge_l", "chrf", "judged", "truncated", "latency_ms")
_SOURCES = {"held_out": "Held-out examples", "questions": "Questions", "general": "General knowledge"}
_FORMATS = {".html": "html", ".htm": "html", ".md": "markdown"}


def evaluate(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="The adapter; default: the one that was published last.",
            autocompletion=adapter_names,
        ),
    ] = None,
    versions: Annotated[str | None, typer.Option(help="Their numbers, as 1,2; default: the live one.")] = None,
    has_rag: Annotated[bool, typer.Option("--rag", help="Compare answers from the documents as well.")] = False,
    questions: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="Questions with answers, jsonl or csv; may be given again."),
    ] = None,
    is_judged: Annotated[bool, typer.Option("--judge", help="Ask the judge of the settings, too.")] = False,
    max_questions: Annotated[int | None, typer.Option(min=0, help="Most questions that are answered.")] = None,
    report: Annotated[Path | None, typer.Option(help="Write the report here: FILE.html or FILE.md.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare versions with the base model, by the interval of each difference."""
    report_format = None if report is None else _format_of(report)
    wanted: Json = {"rag": has_rag, "judge": is_judged}
    wanted |= {} if name is None else {"adapter": name}
    wanted |= {} if versions is None else {"versions": _numbers(versions)}
    wanted |= {} if max_questions is None else {"max_questions": max_questions}
    with open_client() as client:
        if questions:
            wanted["question_document_ids"] = question_ids(client, questions)
        job_id = str(client.evaluate(wanted)["job_id"])
        follow_evaluation(client, job_id)
        if report is not None and report_format is not None:
            client.download(f"/fine-tuning/evaluations/{job_id}/report?format={report_format}", report)
        evaluation = client.evaluation(job_id)
    if as_json:
        print_json(evaluation)
    else:
        show_evaluation(evaluation)
    if report is not None:
        note(f"The report is in {report}.")


def evaluations(
    adapter: Annotated[
        str | None, typer.Option(help="Only those of this adapter.", autocompletion=adapter_names)
    ] = None,
    limit: NumRows = 20,
    as_json: AsJson = False,
) -> None:
    """List the newest evaluations."""
    with open_client() as client:
        found = client.evaluations(adapter, limit)
    if as_json:
        print_json(found)
        return
    rows = [
        (one["id"], one["status"], ", ".join(one["columns"]), one["purpose"], when(one["created_at"])) for one in found
    ]
    empty = "No evaluation yet; `finetuned evaluate NAME` makes one."
    print_table(("ID", "STATUS", "COMPARED", "PURPOSE", "CREATED"), rows, if_empty=empty)


def compare(
    name: AdapterName,
    baseline: Annotated[str, typer.Argument(metavar="BASELINE", help="A version's number, base, or rag.")],
    candidate: Annotated[str, typer.Argument(metavar="CANDIDATE", help="The same, for what it is compared with.")],
    metric: Annotated[str | None, typer.Option(help="What answers are sorted by; default: f1.")] = None,
    source: Annotated[str | None, typer.Option(help="questions, held_out or general.")] = None,
    limit: Annotated[int, typer.Option(min=1, max=100, help="Most answers of each kind.")] = 10,
    as_json: AsJson = False,
) -> None:
    """Show the answers that got better and worse, by the latest evaluation that has both."""
    wanted = {"adapter": name, "baseline": baseline, "candidate": candidate, "metric": metric, "source": source}
    with open_client() as client:
        found = client.comparison(given(wanted) | {"limit": limit})
    if as_json:
        print_json(found)
    else:
        _show_comparison(found)


def _format_of(report: Path) -> str:
    """Before the work: its format by the file's ending; and there must be no such file yet."""
    found = _FORMATS.get(report.suffix.lower())
    if found is None:
        raise CommandError(f"{report} ends neither in .html nor in .md; name the report's file so.")
    if report.exists():
        raise CommandError(f"{report} is there already; name another file.")
    return found


def _numbers(versions: str) -> list[int]:
    parts = [part.strip() for part in versions.split(",")]
    if not all(part.isascii() and part.isdecimal() for part in parts):
        raise CommandError("--versions takes numbers with commas between them, as 1,2.")
    return [int(part) for part in parts]


def question_ids(client: Client, files: Sequence[Path]) -> list[str]:
    """The ids of the uploaded files; the name of no file may be the id of a document."""
    paths = [path for path in files if path.exists() or not str(path).startswith("file-")]
    uploaded = client.upload(paths, purpose="questions") if paths else []
    check_accepted(uploaded)
    by_path = dict(zip(paths, (str(one["id"]) for one in uploaded), strict=True))
    return [by_path.get(path, str(path)) for path in files]


def follow_evaluation(client: Client, job_id: str) -> None:
    """Shows how far it is until it has succeeded."""
    try:
        with view_for(Console(stderr=True, highlight=False)) as view:
            succeeded(follow(client, job_id, view).job)
    except KeyboardInterrupt:
        note(f"The evaluation goes on. Follow it: finetuned job {job_id} --follow; end it: finetuned cancel {job_id}")
        raise typer.Exit(INTERRUPTED) from None


def show_evaluation(evaluation: Json) -> None:
    """Its tables, what it says beside them, and the recommendation."""
    report: Json = evaluation["report"] or {"baseline": "", "columns": [], "pairs": []}
    for source, title in _SOURCES.items():
        rows = list(_rows(report, source))
        if rows:
            print_line(f"{title}, against {report['baseline']}:")
            header = ("METRIC", "COLUMN", "VALUE", "95 % INTERVAL", "N", "VERDICT")
            print_table(header, rows, if_empty="")
            print_line("")
    recommendation = evaluation["recommendation"]
    for sentence in (*evaluation["warnings"], *evaluation["notes"]):
        print_paragraph(sentence)
    if recommendation is not None:
        print_paragraph(f"Recommendation: {recommendation['choice']}. {recommendation['summary']}")
        for reason in recommendation["reasons"]:
            print_paragraph(f"- {reason}")
    print_line(f"Evaluation {evaluation['id']}")


def _rows(report: Json, source: str) -> Iterator[tuple[object, ...]]:
    """One for each metric and column that has it; the metric's name stands at its first."""
    verdicts = {(one["candidate"], one["source"], one["metric"]): one["verdict"] for one in report["pairs"]}
    for metric in SHOWN:
        title = metric
        for column in report["columns"]:
            found = column["figures"].get(metric) if column["source"] == source else None
            if found is None:
                continue
            verdict = verdicts.get((column["label"], source, metric), "")
            interval = "" if found["low"] is None else f"{figure(found['low'])} to {figure(found['high'])}"
            yield title, column["label"], figure(found["value"]), interval, found["num_examples"], verdict
            title = ""


def _show_comparison(found: Json) -> None:
    pairs = [one for one in found["pairs"] if found["source"] in (None, one["source"])]
    rows = [
        (
            one["metric"],
            figure(one["difference"]["value"]),
            ""
            if one["difference"]["low"] is None
            else f"{figure(one['difference']['low'])} to {figure(one['difference']['high'])}",
            one["difference"]["num_examples"],
            one["verdict"],
        )
        for one in pairs
    ]
    where = "" if found["source"] is None else f", {_SOURCES[found['source']].lower()}"
    print_line(f"{found['candidate']} minus {found['baseline']}{where}:")
    header = ("METRIC", "DIFFERENCE", "95 % INTERVAL", "N", "VERDICT")
    print_table(header, rows, if_empty="Nothing to compare example by example.")
    for kind in ("better", "worse"):
        for one in (answer for answer in found[kind] if answer["question"] is not None):  # else there is no text
            print_line("")
            _show_answer(kind, found, one)


def _show_answer(kind: str, found: Json, one: Json) -> None:
    values = f"{found['metric']} {figure(one['baseline_value'])}, then {figure(one['candidate_value'])}"
    print_line(f"{kind.capitalize()}, example {one['number']}: {values}")
    texts = {
        "Question": one["question"],
        "Wanted": one["wanted"],
        found["baseline"]: one["baseline_answer"],
        found["candidate"]: one["candidate_answer"],
    }
    for title, text in texts.items():
        if text is not None:
            print_paragraph(f"{title}: {one_line(text)}")
