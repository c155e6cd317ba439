"""Evaluations over HTTP: created, listed, read with their examples, deleted."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from shared.database import Database
from shared.evaluation_parameters import EvaluationParameters
from shared.evaluation_report import EXAMPLES
from shared.models import Dataset
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.storage import Storage
from tests.api.conftest import Upload, claim, publish
from tests.evaluated import BASE, ONE, TWO, evaluated, evaluation, example, publish_report, report

PATH = "/fine-tuning/evaluations"
QUESTIONS = '{"question": "Who?", "answer": "Nobody."}\n'
CONFIG = {"config": {"model_name": "demo"}}


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(settings.data_dir)


def set_up(rows: Database, dataset_id: str, num_held_out: int = 30, model: str = "demo") -> str:
    """A setup job with its dataset; its id."""
    with rows.write() as session:
        JobRepository(session).create("default", "setup", {"config": {"model_name": model}})
    claimed = claim(rows, "setup")
    described = {"fingerprint": "0" * 64, "base_model": model, "statistics": {"validation_examples": num_held_out}}
    with rows.write() as session:
        JobRepository(session).succeed(claimed, {})
        session.add(Dataset(id=dataset_id, project_id="default", job_id=claimed.job_id, **described))
    return claimed.job_id


@pytest.fixture
def setup_id(rows: Database) -> str:
    return set_up(rows, "dataset-1")


@pytest.fixture
def trained(client: TestClient, rows: Database, setup_id: str) -> TestClient:
    """Two versions of `handbook`; the second is live."""
    publish(rows, "handbook", id="version-1", dataset_id="dataset-1")
    publish(rows, "handbook", id="version-2", dataset_id="dataset-1")
    return client


def created(client: TestClient, **wanted: Any) -> dict[str, Any]:
    answer = client.post(PATH, json=wanted)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def parameters_of(rows: Database, job_id: str) -> EvaluationParameters:
    with rows.read() as session:
        return EvaluationParameters.model_validate(JobRepository(session).get("default", job_id).parameters)


def refused(client: TestClient, **wanted: Any) -> tuple[int, str]:
    answer = client.post(PATH, json=wanted)
    assert answer.status_code >= 400, answer.text
    assert answer.json()["detail"]
    return answer.status_code, answer.json()["error"]


def test_without_a_word_the_live_version_is_compared_with_the_base_on_what_was_held_out_of_it(
    trained: TestClient, rows: Database, setup_id: str
) -> None:
    made = created(trained)
    assert made == {"job_id": made["job_id"], "status": "queued", "columns": ["base", "handbook@2"]}
    parameters = parameters_of(rows, made["job_id"])
    assert (parameters.base_model, parameters.setup_job_id, parameters.purpose) == ("demo", setup_id, "asked")
    job = trained.get(f"/fine-tuning/jobs/{made['job_id']}").json()
    assert (job["kind"], job["adapter"], job["model"]) == ("evaluation", "handbook", "demo")


def test_versions_and_rag_are_columns_and_rag_joins_the_newest_version(trained: TestClient, upload: Upload) -> None:
    upload()
    made = created(trained, adapter="handbook", versions=[2, 1, 2], base=False, rag=True)
    assert made["columns"] == ["handbook@2", "handbook@1", "rag", "rag + handbook@2"]


def test_columns_name_who_is_compared_one_by_one(trained: TestClient, upload: Upload) -> None:
    upload()
    columns = [{"adapter": "handbook", "version": 1}, {}, {"backend": "rag", "adapter": "handbook"}]
    assert created(trained, columns=columns)["columns"] == ["handbook@1", "base", "rag + handbook@2"]


def test_questions_are_named_by_their_documents(trained: TestClient, rows: Database, upload: Upload) -> None:
    lines, table = upload(QUESTIONS, "q.jsonl"), upload("question,answer\nWho?,Nobody.\n", "q.csv")
    made = created(trained, question_document_ids=[lines, table, lines], max_questions=5, max_new_tokens=7, seed=3)
    parameters = parameters_of(rows, made["job_id"])
    assert parameters.question_document_ids == (lines, table)
    assert (parameters.max_questions, parameters.max_new_tokens, parameters.seed) == (5, 7, 3)


def test_a_version_that_is_compared_at_the_moment_is_not_deleted(trained: TestClient) -> None:
    job_id = created(trained, adapter="handbook", versions=[1, 2])["job_id"]
    answer = trained.delete("/fine-tuning/adapters/handbook/versions/1")
    assert (answer.status_code, answer.json()["error"]) == (409, "version_in_use")
    assert f"{job_id}, which is queued, compares it" in answer.json()["detail"]
    trained.post(f"/fine-tuning/jobs/{job_id}/cancel")
    assert trained.delete("/fine-tuning/adapters/handbook/versions/1").status_code == 200


def test_a_setup_that_still_runs_is_waited_for(trained: TestClient, rows: Database) -> None:
    with rows.write() as session:
        setup = JobRepository(session).create("default", "setup", CONFIG).id
    made = created(trained, setup_job_id=setup)
    assert trained.get(f"/fine-tuning/jobs/{made['job_id']}").json()["waits_for"] == setup
    trained.post(f"/fine-tuning/jobs/{setup}/cancel")
    assert trained.get(f"{PATH}/{made['job_id']}").json()["status"] == "cancelled"
    assert refused(trained, setup_job_id=setup) == (422, "setup_failed")


def test_an_evaluation_that_cannot_be_made_is_refused(trained: TestClient, rows: Database, upload: Upload) -> None:
    training = created(trained)["job_id"]
    publish(rows, "other", id="version-9", base_model="another", dataset_id="dataset-1")
    publish(rows, "imported", id="version-8")
    nothing_held_out, another = set_up(rows, "dataset-2", 0), set_up(rows, "dataset-3", model="another")
    question, text = upload(QUESTIONS, "q.jsonl"), upload("No question.", "q.txt")
    two_models = [{"adapter": "handbook"}, {"adapter": "other"}]
    many = [{"adapter": "handbook", "version": number} for number in range(1, 14)]
    refusals: list[tuple[dict[str, Any], tuple[int, str]]] = [
        ({"adapter": "nobody"}, (404, "adapter_not_found")),
        ({"adapter": "handbook", "versions": [9]}, (404, "version_not_found")),
        ({"columns": [{"adapter": "nobody"}]}, (404, "adapter_not_found")),
        ({"columns": two_models}, (422, "invalid_request")),
        ({"columns": []}, (422, "invalid_request")),
        ({"columns": many}, (422, "invalid_request")),
        ({"columns": [{"version": 1}]}, (422, "invalid_request")),
        ({"columns": [{}], "rag": True}, (422, "invalid_request")),
        ({"columns": [{"training_job_id": training}]}, (422, "invalid_request")),
        ({"versions": [1]}, (422, "invalid_request")),
        ({"adapter": "handbook", "versions": []}, (422, "invalid_request")),
        ({"adapter": "handbook", "versions": [0]}, (422, "invalid_request")),
        ({"adapter": "../etc"}, (422, "invalid_request")),
        ({"setup_job_id": "setup-none"}, (404, "job_not_found")),
        ({"setup_job_id": training}, (422, "invalid_request")),
        ({"setup_job_id": nothing_held_out}, (422, "invalid_request")),
        ({"setup_job_id": another, "adapter": "handbook"}, (422, "invalid_request")),
        ({"adapter": "imported"}, (422, "invalid_request")),
        ({"question_document_ids": ["file-none"]}, (404, "document_not_found")),
        ({"question_document_ids": [text]}, (422, "invalid_request")),
        ({"question_document_ids": ["\x00"]}, (422, "invalid_request")),
        ({"max_questions": 10_001}, (422, "invalid_request")),
        ({"purpose": "training"}, (422, "invalid_request")),
    ]
    for wanted, said in refusals:
        assert refused(trained, **wanted) == said, wanted
    created(trained, adapter="imported", question_document_ids=[question])
    assert refused(trained, adapter="imported", question_document_ids=[question], max_questions=0)[0] == 422


def test_where_there_is_nothing_to_compare_or_to_search_it_says_so(client: TestClient, rows: Database) -> None:
    assert refused(client) == (404, "adapter_not_found")
    assert refused(client, columns=[{}, {"backend": "rag"}]) == (422, "nothing_indexed")
    assert refused(client, columns=[{}]) == (422, "invalid_request")
    setup = set_up(rows, "dataset-9")
    assert created(client, columns=[{}], setup_job_id=setup)["columns"] == ["base"]


def test_more_columns_than_there_may_be_are_counted_with_those_that_rag_adds(
    trained: TestClient, rows: Database, upload: Upload
) -> None:
    upload()
    for number in range(3, 13):
        publish(rows, "handbook", id=f"version-{number}", dataset_id="dataset-1")
    versions = list(range(1, 13))
    assert refused(trained, adapter="handbook", versions=versions) == (422, "invalid_request")
    assert len(created(trained, adapter="handbook", versions=versions, base=False)["columns"]) == 12


def test_the_same_request_with_the_same_key_is_one_evaluation(trained: TestClient) -> None:
    headers = {"Idempotency-Key": "once"}
    first, again = (trained.post(PATH, json={}, headers=headers).json() for _ in range(2))
    assert first == again
    assert trained.post(PATH, json={"seed": 1}, headers=headers).json()["error"] == "idempotency_key_reused"


def test_evaluations_are_listed_by_adapter_newest_first(client: TestClient, rows: Database, storage: Storage) -> None:
    first = evaluated(rows, storage)
    other = evaluation(rows, (BASE, ONE.model_copy(update={"adapter": "other"})))
    second = evaluation(rows, (BASE, ONE, TWO), purpose="training")
    listed = client.get(PATH, params={"adapter": "handbook"}).json()["data"]
    assert [one["id"] for one in listed] == [second, first]
    assert listed[0] == {
        "id": second, "object": "evaluation", "status": "queued", "purpose": "training", "adapter": "handbook",
        "columns": ["base", "handbook@1", "handbook@2"], "created_at": listed[0]["created_at"], "finished_at": None,
        "warnings": [], "notes": [], "recommendation": None, "verdicts": [], "error": None,
    }  # fmt: skip
    assert (listed[1]["warnings"], listed[1]["recommendation"]["choice"]) == (["A warning."], "tune")
    assert [(one["candidate"], one["metric"]) for one in listed[1]["verdicts"]] == [("handbook@1", "f1")]
    page = client.get(PATH, params={"limit": 1}).json()
    assert (page["has_more"], page["last_id"]) == (True, second)
    rest = client.get(PATH, params={"after": second}).json()["data"]
    assert [one["id"] for one in rest] == [other, first]
    assert client.get(PATH, params={"adapter": "o'; DROP TABLE jobs"}).status_code == 422


def test_an_evaluation_is_read_with_its_report_and_its_progress(
    client: TestClient, rows: Database, storage: Storage
) -> None:
    job_id = evaluation(rows)
    claimed = claim(rows, "evaluation")
    with rows.write() as session:
        JobRepository(session).report_progress(claimed, {"step": 3, "total_steps": 10, "doing": "answers"})
    found = client.get(f"{PATH}/{job_id}").json()
    assert (found["status"], found["report"], found["progress"]["step"]) == ("running", None, 3)
    made = report()
    publish_report(rows, storage, claimed, made)
    found = client.get(f"{PATH}/{job_id}").json()
    assert (found["status"], found["notes"]) == ("succeeded", ["A note."])
    assert found["report"] == made.model_dump(mode="json")


def test_a_job_of_another_kind_is_no_evaluation(client: TestClient, rows: Database) -> None:
    with rows.write() as session:
        job_id = JobRepository(session).create("default", "setup", {}).id
    for method, path in (("GET", job_id), ("GET", f"{job_id}/examples"), ("DELETE", job_id), ("GET", "eval-none")):
        answer = client.request(method, f"{PATH}/{path}")
        assert (answer.status_code, answer.json()["error"]) == (404, "job_not_found")


def test_examples_come_page_by_page_and_by_source(client: TestClient, rows: Database, storage: Storage) -> None:
    values = {"base": 0.0, "handbook@1": 1.0}
    made = [example(number, values, "held_out" if number % 2 else "questions") for number in range(7)]
    path = f"{PATH}/{evaluated(rows, storage, examples=made)}/examples"
    numbers, after = [], None
    while True:
        page = client.get(path, params={"limit": 3} | ({"after": after} if after else {})).json()
        numbers.append([one["number"] for one in page["data"]])
        after = page["last_id"]
        if not page["has_more"]:
            break
    assert numbers == [[0, 1, 2], [3, 4, 5], [6]]
    held_out = client.get(path, params={"source": "held_out", "limit": 2}).json()
    assert ([one["number"] for one in held_out["data"]], held_out["has_more"]) == ([1, 3], True)
    rest = client.get(path, params={"source": "held_out", "after": held_out["last_id"]}).json()
    assert ([one["number"] for one in rest["data"]], rest["has_more"]) == ([5], False)
    assert rest["data"][0] == made[5].model_dump(mode="json")
    assert client.get(path, params={"source": "general"}).json()["data"] == []


@pytest.mark.parametrize(("after", "status"), [("7", 422), ("-1", 422), ("x", 422), ("9" * 19, 422), ("9" * 18, 200)])
def test_what_is_no_line_s_end_is_no_cursor(
    client: TestClient, rows: Database, storage: Storage, after: str, status: int
) -> None:
    path = f"{PATH}/{evaluated(rows, storage, examples=[example(0, {'base': 1.0})])}/examples"
    answer = client.get(path, params={"after": after})
    assert answer.status_code == status
    assert answer.json().get("data", []) == []


def test_examples_are_there_once_it_has_succeeded_and_as_long_as_their_file_is_whole(
    client: TestClient, rows: Database, storage: Storage
) -> None:
    waiting = client.get(f"{PATH}/{evaluation(rows)}/examples")
    assert (waiting.status_code, waiting.json()["detail"].startswith("The evaluation is queued")) == (404, True)
    claim(rows, "evaluation")
    job_id = evaluated(rows, storage, examples=[example(0, {"base": 1.0})])
    file = storage.evaluation(job_id) / EXAMPLES
    file.write_bytes(file.read_bytes()[:-9])
    for _ in range(2):
        answer = client.get(f"{PATH}/{job_id}/examples")
        assert (answer.status_code, "gone or damaged" in answer.json()["detail"]) == (404, True)
        file.unlink(missing_ok=True)


def test_a_deleted_evaluation_is_gone_from_everything_but_the_jobs(
    client: TestClient, rows: Database, storage: Storage
) -> None:
    running = evaluation(rows)
    assert client.delete(f"{PATH}/{running}").json()["error"] == "illegal_transition"
    client.post(f"/fine-tuning/jobs/{running}/cancel")
    done = evaluated(rows, storage)
    for job_id in (running, done):
        assert client.delete(f"{PATH}/{job_id}").json() == {"object": "evaluation", "id": job_id, "deleted": True}
        assert client.delete(f"{PATH}/{job_id}").status_code == 404
        assert client.get(f"{PATH}/{job_id}").status_code == 404
        assert client.get(f"/fine-tuning/jobs/{job_id}").status_code == 200
    assert client.get(PATH).json()["data"] == []
    assert list((storage.root / "evaluations").iterdir()) == []


@pytest.mark.parametrize(("format", "kind"), [("markdown", "text/markdown"), ("html", "text/html")])
def test_a_report_is_a_text_in_which_nothing_of_what_others_wrote_runs(
    client: TestClient, rows: Database, storage: Storage, format: str, kind: str
) -> None:
    evil = "<script>alert(1)</script> | **x** [a](javascript:b) </table>"
    values = {"base": 0.0, "handbook@1": 1.0}
    examples = [example(number, values).model_copy(update={"question": evil}) for number in range(3)]
    job_id = evaluated(rows, storage, examples=examples)
    answer = client.get(f"{PATH}/{job_id}/report", params={"format": format})
    assert answer.status_code == 200, answer.text
    assert answer.headers["content-type"].startswith(kind)
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert policy.endswith("; sandbox")
    assert "script-src" not in policy
    assert "<script" not in answer.text
    assert "javascript:b" in answer.text
    assert "[a](javascript" not in answer.text or format == "html"
    for said in ("handbook@1", "0.400 to 0.600", "24", "+0.200 (+0.100 to +0.300", "better", "Tune."):
        assert said in answer.text, said
    assert ("<svg" in answer.text) == (format == "html")


def test_a_report_is_there_once_the_evaluation_has_succeeded(client: TestClient, rows: Database) -> None:
    job_id = evaluation(rows)
    answer = client.get(f"{PATH}/{job_id}/report")
    assert (answer.status_code, "is queued" in answer.json()["detail"]) == (404, True)
    assert client.get(f"{PATH}/{job_id}/report", params={"format": "pdf"}).status_code == 422


def test_a_report_leaves_out_answers_that_have_no_text(client: TestClient, rows: Database, storage: Storage) -> None:
    silent = example(0, {"base": 0.0, "handbook@1": 1.0}).model_copy(update={"question": None})
    job_id = evaluated(rows, storage, examples=[silent])
    assert "answers that are better" not in client.get(f"{PATH}/{job_id}/report").text
