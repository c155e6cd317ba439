"""`finetuned evaluate`, `evaluations` and `compare` against the real API."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shared.database import Database
from shared.evaluation_parameters import EvaluationParameters
from shared.evaluation_report import Recommendation
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.storage import Storage
from tests.cli.conftest import Run
from tests.cli.test_commands import PlayedWorker, assert_failed, assert_fits, publish
from tests.evaluated import BASE, ONE, TWO, evaluated, evaluation, example, publish_report, report

ROWS = [example(number, {"base": 0.5, "handbook@1": 1.0 - number / 24}) for number in range(25)]


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(settings.data_dir)


@pytest.fixture
def questions(tmp_path: Path) -> Path:
    path = tmp_path / "questions.jsonl"
    path.write_text('{"question": "Who?", "answer": "Nobody."}\n')
    return path


@contextmanager
def worked_on(rows: Database, storage: Storage, *, is_good: bool = True) -> Iterator[list[EvaluationParameters]]:
    """A worker that ends the next evaluation; what it was asked to do."""
    asked: list[EvaluationParameters] = []

    def work() -> None:
        worker = PlayedWorker(rows)
        claim = worker.claim("evaluation")
        asked.append(EvaluationParameters.model_validate(claim.parameters))
        if is_good:
            publish_report(rows, storage, claim, report(), ROWS)
        else:
            worker.fail(claim)

    thread = threading.Thread(target=work)
    thread.start()
    yield asked
    thread.join()


def test_evaluate_follows_the_job_and_shows_intervals_numbers_and_verdicts(
    finetuned: Run, rows: Database, storage: Storage, questions: Path
) -> None:
    publish(rows, "handbook", 1)
    publish(rows, "handbook", 2)
    with worked_on(rows, storage) as asked:
        result = finetuned("evaluate", "handbook", "--versions", "1,2", "--questions", questions, "--max-questions", 5)

    assert result.exit_code == 0, result.output
    assert (asked[0].labels, asked[0].max_questions) == (("base", "handbook@1", "handbook@2"), 5)
    assert len(asked[0].question_document_ids) == 1
    assert_fits(result.stdout)
    assert [line.rstrip() for line in result.stdout.splitlines()][:4] == [
        "Questions, against base:",
        "METRIC  COLUMN      VALUE  95 % INTERVAL   N   VERDICT",
        "f1      base        0.500  0.400 to 0.600  24",
        "        handbook@1  0.500  0.400 to 0.600  24  better",
    ]
    assert "A warning.\nA note.\nRecommendation: tune. Tune.\n- It is better.\n" in result.stdout
    assert "evaluation: succeeded" in result.stderr


def test_an_evaluation_that_fails_ends_the_command_with_its_sentence(
    finetuned: Run, rows: Database, storage: Storage, questions: Path
) -> None:
    publish(rows, "handbook", 1)
    with worked_on(rows, storage, is_good=False):
        result = finetuned("evaluate", "--questions", questions, "--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines()[-1].startswith("Error: ")


def test_evaluate_as_json_gives_the_whole_report_and_takes_documents_that_are_there(
    finetuned: Run, rows: Database, storage: Storage, questions: Path
) -> None:
    publish(rows, "handbook", 1)
    document_id = json.loads(finetuned("upload", questions, "--json").stdout)[0]["id"]
    with worked_on(rows, storage) as asked:
        result = finetuned("evaluate", "handbook", "--questions", document_id, "--rag", "--json")
    assert json.loads(result.stdout)["report"] == report().model_dump(mode="json")
    assert asked[0].question_document_ids == (document_id,)
    assert asked[0].labels == ("base", "handbook@1", "rag", "rag + handbook@1")


def test_what_cannot_be_meant_is_said_before_anything_is_started(
    finetuned: Run, rows: Database, questions: Path
) -> None:
    for words, sentence in [
        (("--versions", "1,x"), "--versions takes numbers with commas between them, as 1,2."),
        (("--report", "report.pdf"), "report.pdf ends neither in .html nor in .md; name the report's file so."),
        (("--questions", "no.csv"), "no.csv cannot be read: No such file or directory."),
    ]:
        assert_failed(finetuned("evaluate", "handbook", *words), sentence)
    there = questions.with_suffix(".md")
    there.touch()
    assert_failed(finetuned("evaluate", "--report", there), f"{there} is there already; name another file.")
    with rows.read() as session:
        assert JobRepository(session).count(None) == {}


def test_evaluations_are_listed_newest_first_and_fit_a_terminal(
    finetuned: Run, rows: Database, storage: Storage
) -> None:
    assert finetuned("evaluations").stdout == "No evaluation yet; `finetuned evaluate NAME` makes one.\n"
    done = evaluated(rows, storage, report((BASE, ONE, TWO)), purpose="training")
    waiting = evaluation(rows)
    result = finetuned("evaluations", "--adapter", "handbook")
    assert_fits(result.stdout)
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["ID", "STATUS", "COMPARED", "PURPOSE", "CREATED"]
    assert lines[1].split()[:2] == [waiting, "queued"]
    assert [done, "succeeded"] in [line.split()[:2] for line in lines]
    assert json.loads(finetuned("evaluations", "--adapter", "other", "--json").stdout) == []


def test_compare_prints_the_answers_that_got_better_and_worse(finetuned: Run, rows: Database, storage: Storage) -> None:
    evil = ROWS[0].model_copy(update={"question": "Who\x1b[2J?\nSay [bold]it[/bold]"})
    evaluated(rows, storage, examples=[evil, *ROWS[1:]])
    result = finetuned("compare", "handbook", "base", 1, "--limit", 1)
    assert result.exit_code == 0, result.output
    assert_fits(result.stdout)
    assert [line.rstrip() for line in result.stdout.splitlines()] == [
        "handbook@1 minus base, questions:",
        "METRIC  DIFFERENCE  95 % INTERVAL   N   VERDICT",
        "f1      0.200       0.100 to 0.300  24  better",
        "",
        "Better, example 0: f1 0.500, then 1.000",
        "Question: Who [2J? Say [bold]it[/bold]",
        "Wanted: That.",
        "base: base says 0",
        "handbook@1: handbook@1 says 0",
        "",
        "Worse, example 24: f1 0.500, then 0.000",
        "Question: Question 24?",
        "Wanted: That.",
        "base: base says 24",
        "handbook@1: handbook@1 says 24",
    ]
    assert len(json.loads(finetuned("compare", "handbook", "base", 1, "--json").stdout)["better"]) == 10
    refused = finetuned("compare", "handbook", "base", 9)
    assert refused.exit_code == 1
    assert refused.stderr.startswith("Error: No evaluation that has succeeded compares handbook@9 with base;")


def test_the_report_is_written_where_it_is_wanted(
    finetuned: Run, rows: Database, storage: Storage, questions: Path, tmp_path: Path
) -> None:
    publish(rows, "handbook", 1)
    for name, begin in (("report.md", "# Evaluation"), ("report.html", "<!doctype html>")):
        with worked_on(rows, storage):
            result = finetuned("evaluate", "--questions", questions, "--report", tmp_path / name)
        assert result.exit_code == 0, result.output
        assert (tmp_path / name).read_text().startswith(begin)
        assert f"The report is in {tmp_path / name}.\n" in result.stderr


def test_advise_follows_all_three_jobs_and_prints_the_recommendation(
    finetuned: Run, rows: Database, storage: Storage, questions: Path, tmp_path: Path
) -> None:
    document = tmp_path / "leave.txt"
    document.write_text("Everybody has 28 days of leave.\n")
    asked: list[EvaluationParameters] = []

    def work() -> None:
        worker = PlayedWorker(rows)
        worker.succeed(worker.claim("setup"))
        worker.succeed(worker.claim("training"))
        claim = worker.claim("evaluation")
        asked.append(EvaluationParameters.model_validate(claim.parameters))
        advised = Recommendation(choice="neither", summary="Nothing helps.", reasons=("F1 is 0.01.",), metric="f1")
        publish_report(rows, storage, claim, report().model_copy(update={"recommendation": advised}), ROWS)

    thread = threading.Thread(target=work)
    thread.start()
    done = finetuned("advise", document, "--questions", questions)
    thread.join()
    assert done.exit_code == 0, done.output
    assert "Recommendation: neither. Nothing helps." in done.stdout
    assert "F1 is 0.01." in done.stdout
    assert (asked[0].purpose, len(asked[0].question_document_ids), asked[0].make_questions) == ("advice", 1, None)
