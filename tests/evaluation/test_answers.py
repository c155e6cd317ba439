"""Generated answers of an evaluation: by real inference workers, as transformers gives them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import redis

from shared.errors import CorruptDocument, DocumentError, DocumentNotFound, Superseded
from shared.repositories.jobs import JobRepository
from shared.repositories.workers import WorkerRepository
from shared.streams import ABORTS, BACKGROUND_QUESTIONS, replies_of
from tests.evaluation.conftest import BASE, QUESTIONS, V1, Bench, generated

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def test_answers_are_those_of_generate_and_come_with_their_metrics(bench: Bench, gpt2: Path) -> None:
    document = bench.upload_questions()
    with bench.answering():
        found = bench.evaluate(BASE, V1, question_document_ids=[document])
    rows = found.of("questions")
    assert [(row.question, row.wanted) for row in rows] == QUESTIONS
    folders = {"base": None, "handbook@1": bench.storage.version("version-handbook-1")}
    texts = {
        label: [generated(gpt2, folder, row.question or "", 6) for row in rows] for label, folder in folders.items()
    }
    assert texts["base"] != texts["handbook@1"]
    for label, wanted in texts.items():
        assert [(row.answers[label].text or "").strip() for row in rows] == wanted
    metrics = rows[0].answers["base"].metrics
    assert {"loss", "exact_match", "f1", "rouge_l", "chrf", "bleu", "repetition", "length"} <= metrics.keys()
    assert (metrics["truncated"], metrics["length"]) == (1.0, 6.0)
    assert metrics["prompt_tokens"] == len("Question: Where is the office?\nAnswer:")
    assert 0 < metrics["latency_ms"] < 60_000
    assert metrics["tokens_per_second"] == pytest.approx(6000 / metrics["latency_ms"])
    figures = {(one.label, one.source): one for one in found.report.columns}
    assert figures["base", "questions"].figures["f1"].num_examples == 3
    assert "corpus_bleu" in figures["base", "questions"].corpus
    asked = [row for row in found.of("held_out") if row.answers["base"].text is not None]
    assert [row.wanted for row in asked] == [f"It is {number}beta." for number in range(5)]


def test_without_an_inference_worker_the_report_has_the_losses_and_says_so(bench: Bench) -> None:
    found = bench.evaluate(BASE, V1, patience=0.2)
    assert all(row.answers["base"].text is None for row in found.rows)
    assert any("loss" in row.answers["base"].metrics for row in found.rows)
    (note,) = found.report.notes
    assert note.startswith("No inference worker was running for 0.2 seconds, so 10 of 10 answers are missing")


def test_an_evaluation_that_is_stopped_in_its_midst_asks_each_question_once(bench: Bench) -> None:
    job = bench.claim(bench.create(BASE, V1))
    output = bench.storage.checkpoints(job.claim.job_id) / "answers.jsonl"
    with bench.answering():
        bench.run(job, lambda: output.exists() and output.stat().st_size > 0)
        kept = output.read_bytes()
        assert kept
        bench.hand_back(job)
        second = bench.claim(bench.row(job))
        bench.run(second)
        whole = bench.evaluate(BASE, V1)
    found = bench.found(second)
    texts = [{label: one.text for label, one in row.answers.items()} for row in found.rows]
    assert texts == [{label: one.text for label, one in row.answers.items()} for row in whole.rows]
    first = json.loads(kept.splitlines()[0])
    assert first["answer"] in {text for row in texts for text in row.values()}


def test_a_cancelled_evaluation_leaves_no_questions_behind_and_no_report(bench: Bench) -> None:
    job = bench.claim(bench.create(BASE, V1))
    with bench.database.write() as session:
        WorkerRepository(session).beat("inference@absent", "inference", {})  # it lives, and answers nothing
    with redis.Redis.from_url(bench.settings.resolved_redis_url) as client:

        def cancel_when_asked() -> bool:
            if client.xlen(BACKGROUND_QUESTIONS) and bench.row(job).status == "running":
                with bench.database.write() as session:
                    JobRepository(session).cancel("default", job.claim.job_id)
            return False

        with client.pubsub() as aborts:
            aborts.subscribe(ABORTS)
            with pytest.raises(Superseded):
                bench.run(job, cancel_when_asked)
            heard = [aborts.get_message(timeout=5) for _ in range(11)]
        assert client.exists(replies_of(job.claim.job_id)) == 0
    aborted = {one["data"].decode() for one in heard if one and one["type"] == "message"}
    assert len(aborted) == 10
    assert all(one.startswith(f"{job.claim.job_id}.") for one in aborted)
    assert not bench.storage.evaluation(job.claim.job_id).exists()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.jsonl", '{"question": "a", "answer": "b"}\n{"question": "a"}', "Line 2: 'answer' is missing"),
        ("q.jsonl", '{"question": "a", "answer": "b"}\n{broken', "Line 2 is not valid JSON"),
        ("q.jsonl", '{"question": "a", "answer": ""}', "Line 1: 'answer' must be a text that is not empty"),
        ("q.jsonl", '{"text": "only that"}', "holds no question with an answer"),
        ("q.csv", "question,answer\na,b,c", "Line 2 has 3 columns"),
        ("q.csv", "one,two\n1,2", "holds no question with an answer"),
        ("q.jsonl", "[" * 100_000, "Line 1 is not valid JSON"),
    ],
)
def test_a_file_of_questions_that_is_wrong_is_said_with_its_line(
    bench: Bench, name: str, content: str, message: str
) -> None:
    job = bench.claim(bench.create(BASE, question_document_ids=[bench.upload(content, name=name)]))
    with pytest.raises(DocumentError, match=message) as raised:
        bench.run(job)
    assert raised.value.detail.startswith(name)
    assert raised.value.param == "question_document_ids"


def test_half_of_a_surrogate_pair_and_marks_of_the_template_are_asked_as_text(bench: Bench) -> None:
    lines = [
        r'{"question": "a \ud800 b", "answer": "\udfff"}',
        '{"question": "<|endoftext|>", "answer": "{} %s \\u0000"}',
    ]
    document = bench.upload("\n".join(lines))
    with bench.answering():
        found = bench.evaluate(BASE, setup_job_id=None, question_document_ids=[document], max_new_tokens=2)
    assert len(found.rows) == 2
    assert all(row.answers["base"].error is None for row in found.rows)
    assert all("\ud800" not in (row.question or "") for row in found.rows)


def test_a_file_of_questions_that_is_gone_or_damaged_is_said(bench: Bench) -> None:
    with pytest.raises(DocumentNotFound):
        bench.evaluate(BASE, question_document_ids=["file-none"])
    document = bench.upload_questions()
    bench.storage.document(document).write_text("{}")
    with pytest.raises(CorruptDocument, match="not what was uploaded"):
        bench.evaluate(BASE, question_document_ids=[document])
