from __future__ import annotations

import threading
from typing import Any

import pytest
import redis
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from api.health.checks import WORKER_KINDS
from shared.database import Database
from shared.errors import CorruptDocument
from shared.models import Job
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.training_config import FineTuningConfig
from tests.api.conftest import Upload, beat, claim, publish
from tests.databases import migrate
from tests.waiting import until


def _parameters(rows: Database, job_id: str) -> dict[str, Any]:
    with rows.read() as session:
        return JobRepository(session).get("default", job_id).parameters


def _num_jobs(rows: Database) -> int:
    with rows.read() as session:
        return session.scalar(select(func.count()).select_from(Job)) or 0


def test_setup_with_an_empty_body_learns_from_everything(client: TestClient, rows: Database, upload: Upload) -> None:
    ids = [upload("first text"), upload("second text")]
    answer = client.post("/fine-tuning/setup")
    assert answer.status_code == 202
    assert answer.json()["status"] == "queued"
    setup = _parameters(rows, answer.json()["job_id"])
    assert setup["document_ids"] == ids
    assert setup["adapter"] == "default"
    assert setup["config"] == FineTuningConfig(model_name="demo").model_dump(mode="json")
    training = _parameters(rows, answer.json()["training_job_id"])
    assert training == {"setup_job_id": answer.json()["job_id"], "adapter": "default", "config": setup["config"]}
    assert (
        client.get(f"/fine-tuning/jobs/{answer.json()['training_job_id']}").json()["waits_for"]
        == answer.json()["job_id"]
    )


def test_setup_passes_on_what_the_client_chose(client: TestClient, rows: Database, upload: Upload) -> None:
    wanted = upload("first text")
    held_out = upload("second text")
    body = {
        "document_ids": [wanted],
        "validation_document_ids": [held_out],
        "model": "microsoft/DialoGPT-small",
        "adapter": "handbook",
        "chunk_size": 128,
        "chunk_overlap": 16,
        "validation_split": 0.2,
        "num_epochs": 7,
        "quantization": "8bit",
        "train": False,
    }
    answer = client.post("/fine-tuning/setup", json=body).json()
    assert answer["training_job_id"] is None
    setup = _parameters(rows, answer["job_id"])
    config = setup.pop("config")
    assert setup == {name: body[name] for name in setup}
    assert (config["model_name"], config["num_epochs"], config["quantization"]) == (body["model"], 7, "8bit")
    assert _num_jobs(rows) == 1


def test_documents_that_are_held_out_are_no_part_of_all(client: TestClient, rows: Database, upload: Upload) -> None:
    learned, held_out = upload("first text"), upload("second text")
    answer = client.post("/fine-tuning/setup", json={"validation_document_ids": [held_out]}).json()
    setup = _parameters(rows, answer["job_id"])
    assert (setup["document_ids"], setup["validation_document_ids"]) == ([learned], [held_out])
    for wanted, code in (("file-nowhere", "document_not_found"), (learned, "invalid_request")):
        body = {"document_ids": [learned], "validation_document_ids": [wanted]}
        assert client.post("/fine-tuning/setup", json=body).json()["error"] == code


@pytest.mark.parametrize(
    ("body", "status", "code", "named"),
    [
        ({"lora_rank": 0}, 422, "invalid_request", "lora_rank"),
        ({"lora_rnk": 8}, 422, "invalid_request", "lora_rnk"),
        ({"method": {"type": "dpo", "betta": 0.1}}, 422, "invalid_request", "betta"),
        ({"method": {"type": "orpo"}}, 422, "invalid_request", "method"),
        ({"modules_to_save": ["lm_head"]}, 422, "invalid_request", "modules_to_save cannot be served"),
        ({"target_modules": ".*(q_proj"}, 422, "invalid_request", "not a valid regular expression"),
        ({"use_dora": True, "quantization": "8bit"}, 422, "invalid_request", "use_dora does not work"),
        ({"model": "demo", "model_name": "microsoft/DialoGPT-small"}, 422, "invalid_request", "model_name"),
        ({"model": "evil/model"}, 422, "model_not_allowed", "evil/model"),
        ({"adapter": "../up"}, 422, "invalid_request", "adapter"),
        ({"chunk_size": 16, "chunk_overlap": 9}, 422, "invalid_request", "chunk_overlap"),
        ({"document_ids": ["file-unknown"]}, 404, "document_not_found", "file-unknown"),
        ({"document_ids": []}, 422, "no_documents", "upload"),
        ([], 422, "invalid_request", ""),
    ],
)
def test_a_wrong_setup_creates_nothing_and_says_what_is_wrong(
    client: TestClient, rows: Database, upload: Upload, body: Any, status: int, code: str, named: str
) -> None:
    upload()
    answer = client.post("/fine-tuning/setup", json=body)
    assert (answer.status_code, answer.json()["error"]) == (status, code)
    assert named in answer.json()["detail"]
    assert _num_jobs(rows) == 0


def test_setup_without_any_document_is_refused(client: TestClient) -> None:
    assert client.post("/fine-tuning/setup", json={}).json()["error"] == "no_documents"


def test_the_doorbell_rings_for_the_setup_job_after_its_commit(
    client: TestClient, upload: Upload, settings: Settings
) -> None:
    upload()
    client.post("/fine-tuning/setup")
    with redis.Redis.from_url(settings.resolved_redis_url) as broker:
        until(lambda: broker.llen("setup") == 1)
        assert broker.llen("training") == 0  # nobody could work on it yet


def test_a_retry_with_the_same_key_gets_the_first_answer(client: TestClient, rows: Database, upload: Upload) -> None:
    upload()
    headers = {"Idempotency-Key": "key-1"}
    first = client.post("/fine-tuning/setup", json={"num_epochs": 1}, headers=headers)
    upload("more text")
    again = client.post("/fine-tuning/setup", json={"num_epochs": 1}, headers=headers)
    assert again.status_code == 202
    assert again.json() == first.json()
    assert _num_jobs(rows) == 2
    other = client.post("/fine-tuning/setup", json={"num_epochs": 2}, headers=headers)
    assert (other.status_code, other.json()["error"]) == (422, "idempotency_key_reused")
    assert client.post("/fine-tuning/setup", headers={"Idempotency-Key": "x" * 256}).status_code == 422


def test_concurrent_requests_with_one_key_create_one_setup(client: TestClient, rows: Database, upload: Upload) -> None:
    upload()
    answers: list[dict[str, Any]] = []

    def send() -> None:
        answers.append(client.post("/fine-tuning/setup", json={}, headers={"Idempotency-Key": "one"}).json())

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(answers) == 6
    assert len({one["job_id"] for one in answers}) == 1
    assert _num_jobs(rows) == 2


def test_training_inherits_model_length_and_adapter_from_its_setup(
    client: TestClient, rows: Database, upload: Upload
) -> None:
    upload()
    body = {"train": False, "adapter": "handbook", "max_length": 64, "model": "demo"}
    setup = client.post("/fine-tuning/setup", json=body).json()
    answer = client.post("/fine-tuning/train", json={"setup_job_id": setup["job_id"], "num_epochs": 2})
    assert answer.status_code == 202
    training = _parameters(rows, answer.json()["job_id"])
    assert (training["adapter"], training["setup_job_id"]) == ("handbook", setup["job_id"])
    config = training["config"]
    assert (config["model_name"], config["max_length"], config["num_epochs"]) == ("demo", 64, 2)


def test_training_is_refused_without_a_usable_setup(client: TestClient, rows: Database, upload: Upload) -> None:
    upload()
    both = client.post("/fine-tuning/setup", json={}).json()

    def code(**body: object) -> tuple[int, str]:
        answer = client.post("/fine-tuning/train", json=body)
        return answer.status_code, answer.json()["error"]

    assert code(setup_job_id="setup-unknown") == (404, "job_not_found")
    assert code(setup_job_id=both["training_job_id"]) == (422, "invalid_request")
    assert code(setup_job_id=both["job_id"], model_name="microsoft/DialoGPT-small") == (422, "invalid_request")
    assert code() == (422, "invalid_request")
    client.post(f"/fine-tuning/jobs/{both['job_id']}/cancel")
    assert code(setup_job_id=both["job_id"]) == (422, "setup_failed")


def test_dpo_is_refused_on_a_finished_setup_without_preferences(
    client: TestClient, rows: Database, upload: Upload
) -> None:
    upload()

    def train_after(**result: int) -> Any:
        setup = client.post("/fine-tuning/setup", json={"train": False}).json()["job_id"]
        claimed = claim(rows, "setup")
        with rows.write() as session:
            JobRepository(session).succeed(claimed, result)
        return client.post("/fine-tuning/train", json={"setup_job_id": setup, "method": {"type": "dpo", "beta": 0.2}})

    refused = train_after(examples=9)
    assert (refused.status_code, refused.json()["error"]) == (422, "nothing_to_learn")
    assert "'chosen'" in refused.json()["detail"]
    accepted = train_after(examples=9, preference_pairs=2)
    assert accepted.status_code == 202
    assert _parameters(rows, accepted.json()["job_id"])["config"]["method"] == {"type": "dpo", "beta": 0.2}


def test_jobs_are_accepted_while_redis_is_away(tmp_path: Any) -> None:
    from api.main import create_app

    settings = Settings(data_dir=tmp_path, redis_url=f"unix://{tmp_path}/none.sock", base_model="demo")
    migrate(settings.resolved_database_url)
    with TestClient(create_app(settings), base_url="http://localhost") as client:
        client.post("/documents", files=[("files", ("a.txt", b"text"))])
        answer = client.post("/fine-tuning/setup")
        assert answer.status_code == 202
        assert client.get(f"/fine-tuning/jobs/{answer.json()['job_id']}").json()["status"] == "queued"


def test_status_tells_what_is_missing(client: TestClient) -> None:
    status = client.get("/fine-tuning/status").json()
    assert (status["trained"], status["available"], status["version"]) == (False, False, None)
    assert status["model"] == "demo"
    assert len(status["missing"]) == len(WORKER_KINDS)  # no worker of any kind
    assert all(sentence.endswith(".") for sentence in status["missing"])


def test_status_counts_jobs_and_workers_and_names_the_version(
    client: TestClient, rows: Database, upload: Upload
) -> None:
    upload()
    client.post("/fine-tuning/setup")
    claim(rows, "setup")
    beat(rows, *WORKER_KINDS)
    publish(rows, "handbook")
    status = client.get("/fine-tuning/status").json()
    assert (status["trained"], status["available"]) == (True, True)
    assert (status["adapter"], status["version"], status["model"]) == ("handbook", 1, "demo")
    assert (status["running_jobs"], status["queued_jobs"]) == (1, 1)
    assert (status["inference_workers"], status["training_workers"], status["setup_workers"]) == (1, 1, 1)
    assert status["missing"] == []


def test_a_failing_document_is_shown_by_the_job_that_met_it(client: TestClient, rows: Database, upload: Upload) -> None:
    upload()
    answer = client.post("/fine-tuning/setup").json()
    claimed = claim(rows, "setup")
    with rows.write() as session:
        JobRepository(session).fail(claimed, CorruptDocument("notes.txt is damaged; upload it again."))
    job = client.get(f"/fine-tuning/jobs/{answer['job_id']}").json()
    assert job["error"] == {"code": "document_corrupt", "detail": "notes.txt is damaged; upload it again."}
    waiting = client.get(f"/fine-tuning/jobs/{answer['training_job_id']}").json()
    assert (waiting["status"], waiting["error"]["code"]) == ("failed", "setup_failed")
