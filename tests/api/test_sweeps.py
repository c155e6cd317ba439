"""Sweeps over HTTP: what is asked, what is refused with its cure, and what is shown while trials run and after."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from shared.database import Database
from shared.models import Job, ModelCheckpoint
from shared.repositories.jobs import Claim, JobRepository
from shared.repositories.sweeps import SweepRepository
from shared.sweep_parameters import SWEEP, TRIAL, SweepParameters
from tests.api.conftest import Upload, claim

RATES = {"learning_rate": {"type": "float", "low": 1e-5, "high": 1e-3, "log": True}}


@pytest.fixture
def setup_id(client: TestClient, upload: Upload) -> str:
    upload("Everybody has 28 days of leave.\n", "leave.txt")
    answer = client.post("/fine-tuning/setup", json={"train": False, "adapter": "handbook", "max_length": 64})
    return str(answer.json()["job_id"])


def create(client: TestClient, **body: Any) -> dict[str, Any]:
    answer = client.post("/fine-tuning/sweeps", json=body)
    assert answer.status_code == 202, answer.text
    return dict(answer.json())


def parameters_of(rows: Database, job_id: str) -> SweepParameters:
    with rows.read() as session:
        return SweepParameters.model_validate(JobRepository(session).get("default", job_id).parameters)


def test_a_sweep_waits_for_its_setup_and_inherits_from_it(client: TestClient, rows: Database, setup_id: str) -> None:
    made = create(client, setup_job_id=setup_id, space=RATES, num_trials=7, config={"num_epochs": 1})
    assert made["setup_job_id"] == setup_id
    assert made["job_id"].startswith("sweep-")
    wanted = parameters_of(rows, made["job_id"])
    assert (wanted.adapter, wanted.num_trials, list(wanted.space)) == ("handbook", 7, ["learning_rate"])
    assert (wanted.config.model_name, wanted.config.max_length, wanted.config.num_epochs) == ("demo", 64, 1)
    shown = client.get(f"/fine-tuning/sweeps/{made['job_id']}").json()
    assert (shown["status"], shown["trials"], shown["best"], shown["num_trials"]) == ("queued", [], None, 7)
    assert client.get(f"/fine-tuning/jobs/{made['job_id']}").json()["waits_for"] == setup_id
    assert [one["id"] for one in client.get("/fine-tuning/sweeps").json()["data"]] == [made["job_id"]]


def test_without_a_setup_one_is_made_of_documents(client: TestClient, rows: Database, upload: Upload) -> None:
    document = upload("Everybody has 28 days of leave.\n", "leave.txt")
    upload("Everybody learns.\n", "learning.txt")
    made = create(client, document_ids=[document], adapter="leave", config={"max_length": 32})
    with rows.read() as session:
        setup = JobRepository(session).get("default", made["setup_job_id"])
    assert (setup.kind, setup.parameters["document_ids"], setup.parameters["adapter"]) == ("setup", [document], "leave")
    assert parameters_of(rows, made["job_id"]).config.max_length == 32


@pytest.mark.parametrize(
    ("body", "code", "said"),
    [
        ({"space": {"rank": {"type": "int", "low": 1, "high": 2}}}, "invalid_request", "space names rank"),
        ({"space": {"lora_rank": {"type": "int", "low": 0, "high": 2}}}, "invalid_request", "lora_rank cannot be 0"),
        ({"num_trials": 0}, "invalid_request", "num_trials"),
        ({"config": {"model_name": "google/flan-t5-small"}}, "invalid_request", "This setup was made for demo"),
        ({"document_ids": ["document-1"]}, "invalid_request", "document_ids is for a new setup"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_sentence(
    client: TestClient, setup_id: str, body: dict[str, Any], code: str, said: str
) -> None:
    answer = client.post("/fine-tuning/sweeps", json={"setup_job_id": setup_id, **body})
    assert (answer.status_code, answer.json()["error"]) == (422, code)
    assert said in answer.json()["detail"]


def test_a_setup_that_holds_nothing_out_is_refused_with_what_to_do(client: TestClient, upload: Upload) -> None:
    upload("Everybody has 28 days of leave.\n", "leave.txt")
    setup = client.post("/fine-tuning/setup", json={"train": False, "validation_split": 0}).json()["job_id"]
    for body in ({"setup_job_id": setup}, {"validation_split": 0}):
        answer = client.post("/fine-tuning/sweeps", json=body)
        assert (answer.status_code, answer.json()["error"]) == (422, "too_few_examples")
        assert "validation_split" in answer.json()["detail"]


def test_an_unknown_sweep_and_a_job_of_another_kind_are_not_found(client: TestClient, setup_id: str) -> None:
    for name in ("sweep-0", setup_id):
        assert client.get(f"/fine-tuning/sweeps/{name}").json()["error"] == "job_not_found"
    answer = client.post("/fine-tuning/sweeps", json={"setup_job_id": "setup-0"})
    assert answer.json()["error"] == "job_not_found"


@pytest.fixture
def running(client: TestClient, rows: Database, setup_id: str) -> Claim:
    """A sweep with a trial that has ended, one that runs and one that ended just now."""
    create(client, setup_job_id=setup_id, space=RATES, num_trials=5)
    with rows.write() as session:
        claimed = JobRepository(session).claim_next("setup", "worker-1", 60.0)
        assert claimed is not None
        JobRepository(session).succeed(claimed, {"validation_examples": 9})
    sweep = claim(rows, "sweep")
    trainings = [_train(rows, sweep, number) for number in range(3)]
    with rows.write() as session:
        jobs = JobRepository(session)
        first, second, third = (jobs.claim_next("training", "worker-1", 60.0) for _ in range(3))
        assert None not in (first, second, third)
        for one, step in ((first, 1), (first, 2), (second, 1)):
            data = {"step": step, "valid_loss": 2.0 / step}
            jobs.add_event(one, type="metrics", level="info", message="Step", data=data)
        jobs.succeed(first, {"metrics": {"validation_loss": 1.0}})
        jobs.succeed(third, {"metrics": {"validation_loss": 1.5}})
        session.add(ModelCheckpoint(id="version-a", project_id="default", job_id=trainings[0].id, step=2,
                                    adapter="handbook", base_model="demo", metrics={}, size_bytes=1))  # fmt: skip
        said = {"trial": 0, "state": "complete", "job_id": trainings[0].id, "params": {"learning_rate": 1e-4},
                "value": 1.0, "steps": [[1, 2.0], [2, 1.0]], "seconds": 3.5, "error": None}  # fmt: skip
        jobs.add_event(sweep, type="message", level="info", message="Trial 0", data=said)
        progress = {"step": 1, "validation_loss": 1.0, "seconds_left": 12.0, "importances": {"learning_rate": 1.0}}
        jobs.report_progress(sweep, progress)
    return sweep


def _train(rows: Database, sweep: Claim, number: int) -> Job:
    config = {"model_name": "demo", "learning_rate": 1e-4 + number}
    with rows.write() as session:
        more = {"adapter": "handbook", "config": config, SWEEP: sweep.job_id, TRIAL: number}
        return SweepRepository(session).add_trial(sweep, {"setup_job_id": "setup-1", **more})


def test_trials_are_shown_as_they_run_and_as_they_ended(client: TestClient, running: Claim) -> None:
    shown = client.get(f"/fine-tuning/sweeps/{running.job_id}").json()
    first, second, third = shown["trials"]
    assert (first["state"], first["value"], first["seconds"], first["steps"]) == (
        "complete",
        1.0,
        3.5,
        [[1, 2], [2, 1]],
    )
    assert (second["state"], second["value"], second["steps"]) == ("running", 2.0, [[1, 2.0]])
    assert second["params"] == {"learning_rate": 1e-4 + 1}
    assert (third["state"], third["value"]) == ("complete", 1.5)  # the sweep has not told of its end yet
    best = shown["best"]
    assert (best["number"], best["value"], best["version"], best["decision"]) == (0, 1.0, None, None)
    assert best["model"].startswith("ft:demo:default:handbook:")
    assert best["model"].endswith(":ckpt-step-2")
    assert (shown["importances"], shown["seconds_left"], shown["num_ended"]) == ({"learning_rate": 1.0}, 12.0, 1)
    (listed,) = client.get("/fine-tuning/sweeps").json()["data"]
    assert (listed["num_ended"], listed["best_loss"], listed["version"]) == (1, 1.0, None)


def test_cancel_ends_what_runs_for_it_and_what_has_ended_stays(client: TestClient, running: Claim) -> None:
    assert client.post(f"/fine-tuning/jobs/{running.job_id}/cancel").json()["status"] == "cancelled"
    shown = client.get(f"/fine-tuning/sweeps/{running.job_id}").json()
    assert [one["state"] for one in shown["trials"]] == ["complete", "cancelled", "complete"]
    assert (shown["status"], shown["best"]["number"], shown["seconds_left"]) == ("cancelled", 0, None)


def test_a_trial_belongs_to_whoever_asked_for_the_sweep(rows: Database, running: Claim) -> None:
    with rows.write() as session:
        session.get_one(Job, running.job_id).api_key_id = "key-1"
    assert _train(rows, running, 3).api_key_id == "key-1"
