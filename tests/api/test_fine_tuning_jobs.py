from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest
from fastapi.testclient import TestClient
from openai.types.fine_tuning import FineTuningJob

from shared.claimed_job import ClaimedJob
from shared.database import Database
from shared.errors import CorruptDocument, OutOfMemory
from shared.models import Document, Job, ModelCheckpoint
from shared.repositories.checkpoints import ModelCheckpointRepository
from shared.repositories.jobs import JobRepository
from tests.api.conftest import Upload, claim


@pytest.fixture
def api(client: TestClient) -> openai.OpenAI:
    """The official client, strict about every answer's type."""
    return openai.OpenAI(
        base_url="http://localhost/v1",
        api_key="unused",
        _strict_response_validation=True,
        max_retries=0,
        http_client=client,
    )


def _add_file(rows: Database, file_id: str, purpose: str) -> str:
    with rows.write() as session:
        session.add(
            Document(
                id=file_id,
                project_id="default",
                filename=f"{file_id}.jsonl",
                kind="jsonl",
                size_bytes=1,
                sha256=file_id,
                purpose=purpose,
            )
        )
    return file_id


@pytest.fixture
def training_file(rows: Database) -> str:
    return _add_file(rows, "file-training", "fine-tune")


@pytest.fixture
def job(api: openai.OpenAI, training_file: str) -> FineTuningJob:
    return api.fine_tuning.jobs.create(model="demo", training_file=training_file, suffix="handbook")


def _row(rows: Database, job_id: str) -> Job:
    with rows.read() as session:
        return JobRepository(session).get("default", job_id)


def _config(rows: Database, job_id: str) -> dict[str, Any]:
    config: dict[str, Any] = _row(rows, job_id).parameters["config"]
    return config


def _setup(rows: Database, job_id: str) -> Job:
    return _row(rows, str(_row(rows, job_id).waits_for))


def _succeed(work: ClaimedJob, **result: object) -> None:
    with work.database.write() as session:
        JobRepository(session).succeed(work.claim, dict(result))


def _start_training(rows: Database) -> ClaimedJob:
    """The setup succeeds and the training runs."""
    _succeed(ClaimedJob(rows, claim(rows, "setup")))
    return ClaimedJob(rows, claim(rows, "training"))


def _add_checkpoint(rows: Database, job_id: str, step: int, **metrics: float) -> str:
    checkpoint = ModelCheckpoint(
        id=f"version-{step}",
        project_id="default",
        job_id=job_id,
        step=step,
        adapter="handbook",
        base_model="demo",
        metrics=metrics,
        size_bytes=1,
    )
    with rows.write() as session:
        return ModelCheckpointRepository(session).add(checkpoint).id


def test_a_new_job_shows_what_was_asked_and_validates_its_files_first(api: openai.OpenAI, training_file: str) -> None:
    job = api.fine_tuning.jobs.create(
        model="demo",
        training_file=training_file,
        suffix="my handbook",
        seed=7,
        metadata={"team": "docs"},
        integrations=[{"type": "wandb", "wandb": {"project": "handbook", "tags": ["a"]}}],
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 2}}},
    )
    assert job.id.startswith("ftjob-")
    assert (job.status, job.model, job.training_file, job.validation_file) == (
        "validating_files",
        "demo",
        training_file,
        None,
    )
    assert (job.seed, job.metadata, job.organization_id) == (7, {"team": "docs"}, "default")
    assert (job.error, job.fine_tuned_model, job.finished_at, job.trained_tokens) == (None, None, None, None)
    assert (job.hyperparameters.n_epochs, job.hyperparameters.batch_size) == (2, "auto")
    assert job.method is not None
    assert job.method.supervised is not None
    assert job.method.supervised.hyperparameters is not None
    assert job.method.supervised.hyperparameters.n_epochs == 2
    assert job.integrations is not None
    assert (job.integrations[0].wandb.project, job.integrations[0].wandb.tags) == ("handbook", ["a"])
    assert api.fine_tuning.jobs.retrieve(job.id) == job


def test_a_job_goes_through_openais_statuses(api: openai.OpenAI, rows: Database, job: FineTuningJob) -> None:
    def status() -> str:
        return api.fine_tuning.jobs.retrieve(job.id).status

    setup = ClaimedJob(rows, claim(rows, "setup"))
    assert status() == "validating_files"
    _succeed(setup)
    assert status() == "queued"
    training = ClaimedJob(rows, claim(rows, "training"))
    training.report({"step": 3, "total_steps": 9, "seconds_left": 3600.0})
    running = api.fine_tuning.jobs.retrieve(job.id)
    assert running.status == "running"
    assert running.estimated_finish is not None
    assert 3500 < running.estimated_finish - running.created_at < 3700
    _succeed(training, metrics={"trained_tokens": 1234}, result_files=["file-results"])
    done = api.fine_tuning.jobs.retrieve(job.id)
    assert (done.status, done.trained_tokens, done.result_files) == ("succeeded", 1234, ["file-results"])
    assert done.fine_tuned_model == f"ft:demo:default:handbook:{job.id.removeprefix('ftjob-')}"
    assert done.finished_at is not None
    assert done.estimated_finish is None


def test_a_failed_setup_is_the_jobs_error(api: openai.OpenAI, rows: Database, job: FineTuningJob) -> None:
    with rows.write() as session:
        JobRepository(session).fail(claim(rows, "setup"), CorruptDocument("Line 3 is no JSON."))
    failed = api.fine_tuning.jobs.retrieve(job.id)
    assert failed.status == "failed"
    assert failed.error is not None
    assert (failed.error.code, failed.error.message, failed.error.param) == (
        "document_corrupt",
        "Line 3 is no JSON.",
        "training_file",
    )


def test_a_failed_training_shows_its_own_error(api: openai.OpenAI, rows: Database, job: FineTuningJob) -> None:
    training = _start_training(rows)
    with rows.write() as session:
        JobRepository(session).fail(training.claim, OutOfMemory())
    error = api.fine_tuning.jobs.retrieve(job.id).error
    assert error is not None
    assert (error.code, error.param) == ("out_of_memory", None)


def test_openais_hyperparameters_become_ours(api: openai.OpenAI, rows: Database, training_file: str) -> None:
    job = api.fine_tuning.jobs.create(
        model="demo",
        training_file=training_file,
        hyperparameters={"n_epochs": 5, "batch_size": 6, "learning_rate_multiplier": 0.5},
    )
    config = _config(rows, job.id)
    assert (config["num_epochs"], config["learning_rate"]) == (5, 1e-4)
    assert (config["batch_size"], config["gradient_accumulation_steps"]) == (3, 2)
    assert job.hyperparameters.batch_size == 6
    assert _row(rows, job.id).parameters["adapter"] == "default"


def test_auto_leaves_a_hyperparameter_to_us(api: openai.OpenAI, rows: Database, training_file: str) -> None:
    job = api.fine_tuning.jobs.create(
        model="demo",
        training_file=training_file,
        method={
            "type": "dpo",
            "dpo": {"hyperparameters": {"beta": "auto", "n_epochs": "auto", "learning_rate_multiplier": "auto"}},
        },
    )
    config = _config(rows, job.id)
    assert (config["num_epochs"], config["learning_rate"], config["seed"]) == (3, 2e-4, 0)
    assert config["method"] == {"type": "dpo", "beta": 0.1}


def test_dpo_takes_its_beta(api: openai.OpenAI, rows: Database, training_file: str) -> None:
    job = api.fine_tuning.jobs.create(
        model="demo",
        training_file=training_file,
        method={"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.4, "n_epochs": 1}}},
    )
    assert _config(rows, job.id)["method"] == {"type": "dpo", "beta": 0.4}
    assert job.method is not None
    assert job.method.dpo is not None
    assert job.method.dpo.hyperparameters is not None
    assert (job.method.dpo.hyperparameters.beta, job.hyperparameters.n_epochs) == (0.4, 1)


def test_lora_options_come_by_extra_body(api: openai.OpenAI, rows: Database, training_file: str) -> None:
    lora = {
        "rank": 4,
        "lora_alpha": 8,
        "dropout": 0.0,
        "target_modules": ["c_attn"],
        "quantization": "4bit",
        "max_length": 64,
        "learning_rate": 1e-3,
        "trackers": ["tensorboard"],
        "chunk_size": 32,
        "validation_split": 0.2,
    }
    job = api.fine_tuning.jobs.create(
        model="demo",
        training_file=training_file,
        integrations=[{"type": "wandb", "wandb": {"project": "handbook"}}],
        extra_body={"lora": lora},
    )
    config, setup = _config(rows, job.id), _setup(rows, job.id).parameters
    assert (config["lora_rank"], config["lora_alpha"], config["lora_dropout"]) == (4, 8, 0.0)
    assert (config["target_modules"], config["quantization"], config["max_length"]) == (["c_attn"], "4bit", 64)
    assert (config["learning_rate"], config["trackers"]) == (1e-3, ["tensorboard", "wandb"])
    assert (setup["chunk_size"], setup["validation_split"]) == (32, 0.2)
    assert setup["config"] == config


def test_a_validation_file_is_held_out_and_without_one_nothing_is(
    api: openai.OpenAI, rows: Database, training_file: str
) -> None:
    held_out = _add_file(rows, "file-validation", "fine-tune")
    job = api.fine_tuning.jobs.create(model="demo", training_file=training_file, validation_file=held_out)
    setup = _setup(rows, job.id).parameters
    assert (setup["document_ids"], setup["validation_document_ids"]) == ([training_file], [held_out])
    assert job.validation_file == held_out
    bare = api.fine_tuning.jobs.create(model="demo", training_file=training_file)
    assert _setup(rows, bare.id).parameters["validation_split"] == 0.0
    stopping = api.fine_tuning.jobs.create(
        model="demo", training_file=training_file, extra_body={"lora": {"early_stopping_patience": 2}}
    )
    assert _setup(rows, stopping.id).parameters["validation_split"] == 0.1


def test_a_raw_document_is_a_training_file_too(api: openai.OpenAI, rows: Database, upload: Upload) -> None:
    document = upload("Some text to learn.", "notes.md")
    job = api.fine_tuning.jobs.create(model="demo", training_file=document)
    assert _setup(rows, job.id).parameters["document_ids"] == [document]


REFUSED: list[tuple[dict[str, Any], str | None, str]] = [
    ({"model": "gpt-4o-mini"}, "model", "FINETUNED_ALLOWED_MODELS"),
    ({"model": "ft:demo:default:x:abc"}, "model", "cannot be trained further"),
    ({"training_file": "file-nowhere"}, "training_file", "no file 'file-nowhere'"),
    ({"training_file": "file-batch"}, "training_file", "purpose is 'batch'"),
    ({"validation_file": "file-nowhere"}, "validation_file", "no file"),
    ({"validation_file": "file-training"}, "validation_file", "another than the training file"),
    ({"suffix": "a:b"}, "suffix", "letters, digits"),
    ({"suffix": "x" * 65}, "suffix", "64"),
    ({"seed": -1}, "seed", "greater"),
    ({"method": {"type": "reinforcement", "reinforcement": {}}}, "method", "not supported"),
    ({"method": {"type": "supervised", "dpo": {}}}, "method", "make them agree"),
    ({"method": {"type": "odd"}}, "method.type", "supervised"),
    ({"hyperparameters": {"n_epochs": 0}}, "hyperparameters.n_epochs", "greater"),
    ({"hyperparameters": {"batch_size": "some"}}, "hyperparameters.batch_size", "integer"),
    ({"hyperparameters": {"learning_rate_multiplier": 1e300}}, "hyperparameters.learning_rate_multiplier", "less"),
    (
        {
            "hyperparameters": {"n_epochs": 2},
            "method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 3}}},
        },
        "hyperparameters.n_epochs",
        "different values",
    ),
    ({"metadata": {str(number): "" for number in range(17)}}, "metadata", "16"),
    ({"metadata": {"a": "x" * 513}}, "metadata.a", "512"),
    ({"integrations": [{"type": "odd", "wandb": {"project": "x"}}]}, "integrations.0.type", "wandb"),
    ({"lora": {"rang": 4}}, "lora.rang", "not permitted"),
    ({"lora": {"rank": 0}}, "lora.lora_rank", "greater"),
    ({"lora": {"rank": 4, "lora_rank": 4}}, "lora", "two names of one field"),
    ({"lora": {"seed": 4}}, "lora", "outside of lora"),
    ({"lora": {"learning_rate": 0.1}, "hyperparameters": {"learning_rate_multiplier": 2}}, "lora.learning_rate", "one"),
    (
        {"lora": {"gradient_accumulation_steps": 1}, "hyperparameters": {"batch_size": 2}},
        "lora.gradient_accumulation_steps",
        "give one",
    ),
    ({"lora": {"chunk_size": 16, "chunk_overlap": 16}}, None, "half of chunk_size"),
    ({"odd": 1}, "odd", "not permitted"),
]


def test_what_cannot_be_done_is_refused_by_name(api: openai.OpenAI, rows: Database, training_file: str) -> None:
    _add_file(rows, "file-batch", "batch")
    for changes, param, words in REFUSED:
        body = {"model": "demo", "training_file": training_file, **changes}
        with pytest.raises(openai.BadRequestError) as caught:
            api.fine_tuning.jobs.create(model="", training_file="", extra_body=body)
        assert words in caught.value.message, changes
        assert caught.value.param == param, changes
    assert api.fine_tuning.jobs.list().data == []


def test_a_retry_with_the_same_key_makes_no_second_job(api: openai.OpenAI, training_file: str) -> None:
    def create() -> str:
        headers = {"Idempotency-Key": "one"}
        return api.fine_tuning.jobs.create(model="demo", training_file=training_file, extra_headers=headers).id

    assert create() == create()
    assert len(api.fine_tuning.jobs.list().data) == 1


def test_jobs_are_listed_newest_first_over_pages(api: openai.OpenAI, training_file: str) -> None:
    made = [api.fine_tuning.jobs.create(model="demo", training_file=training_file).id for _ in range(5)]
    assert [one.id for one in api.fine_tuning.jobs.list(limit=2)] == made[::-1]


def test_jobs_are_filtered_by_metadata(api: openai.OpenAI, client: TestClient, training_file: str) -> None:
    def create(metadata: dict[str, str] | None) -> str:
        return api.fine_tuning.jobs.create(model="demo", training_file=training_file, metadata=metadata).id

    odd = {'a "quoted" key, {braces}': "é\\'%"}
    docs, other, strange, bare = create({"team": "docs", "n": "1"}), create({"team": "x"}), create(odd), create(None)

    def ids(metadata: dict[str, str]) -> list[str]:
        return [one.id for one in api.fine_tuning.jobs.list(metadata=metadata)]

    assert ids({"team": "docs"}) == [docs]
    assert ids({"team": "docs", "n": "1"}) == [docs]
    assert ids({"team": "docs", "n": "2"}) == []
    assert ids(odd) == [strange]
    assert ids({}) == [bare, strange, other, docs]
    assert [one.id for one in api.fine_tuning.jobs.list(extra_query={"metadata": "null"})] == [bare]
    for query in ({"metadata": "docs"}, {"metadata": "null", "metadata[a]": "b"}, {"metadata[a\0]": "b"}):
        assert client.get("/v1/fine_tuning/jobs", params=query).status_code == 400


def test_native_trainings_are_listed_too_and_their_setups_are_not(
    api: openai.OpenAI, client: TestClient, upload: Upload
) -> None:
    document = upload()
    made = client.post("/fine-tuning/setup", json={"adapter": "notes", "num_epochs": 2, "learning_rate": 4e-4}).json()
    (job,) = api.fine_tuning.jobs.list().data
    assert (job.id, job.training_file, job.model) == (made["training_job_id"], document, "demo")
    shown = job.hyperparameters
    assert (shown.n_epochs, shown.batch_size, shown.learning_rate_multiplier) == (2, 16, 2.0)
    assert (job.metadata, job.integrations, job.status) == (None, [], "validating_files")
    with pytest.raises(openai.NotFoundError):
        api.fine_tuning.jobs.retrieve(made["job_id"])


def test_cancel_ends_the_setup_too(api: openai.OpenAI, rows: Database, job: FineTuningJob) -> None:
    claim(rows, "setup")
    assert api.fine_tuning.jobs.cancel(job.id).status == "cancelled"
    assert _setup(rows, job.id).status == "cancelled"
    assert api.fine_tuning.jobs.retrieve(job.id).error is None


def test_cancel_leaves_a_setup_that_another_training_waits_for(
    api: openai.OpenAI, client: TestClient, rows: Database, job: FineTuningJob
) -> None:
    setup = _setup(rows, job.id)
    other = client.post("/fine-tuning/train", json={"setup_job_id": setup.id}).json()["job_id"]
    api.fine_tuning.jobs.cancel(job.id)
    assert _row(rows, setup.id).status == "queued"
    assert api.fine_tuning.jobs.cancel(other).status == "cancelled"
    assert _row(rows, setup.id).status == "cancelled"


def test_a_training_rests_and_goes_on(api: openai.OpenAI, rows: Database, job: FineTuningJob) -> None:
    training = _start_training(rows)
    pausing = api.fine_tuning.jobs.pause(job.id)
    assert (pausing.status, pausing.to_dict()["native_status"]) == ("running", "pausing")
    with rows.write() as session:
        JobRepository(session).hand_back(training.claim)
    paused = api.fine_tuning.jobs.retrieve(job.id)
    assert (paused.status, paused.to_dict()["native_status"]) == ("queued", "paused")
    resumed = api.fine_tuning.jobs.resume(job.id)
    assert (resumed.status, resumed.to_dict()["native_status"]) == ("queued", "queued")


def test_an_illegal_transition_is_a_bad_request(api: openai.OpenAI, job: FineTuningJob) -> None:
    with pytest.raises(openai.BadRequestError, match="queued") as caught:
        api.fine_tuning.jobs.resume(job.id)
    assert caught.value.code == "illegal_transition"
    api.fine_tuning.jobs.cancel(job.id)
    for move in (api.fine_tuning.jobs.cancel, api.fine_tuning.jobs.pause):
        with pytest.raises(openai.BadRequestError):
            move(job.id)


def test_an_unknown_job_is_not_found(api: openai.OpenAI) -> None:
    jobs = api.fine_tuning.jobs
    for call in (jobs.retrieve, jobs.cancel, jobs.pause, jobs.resume, jobs.list_events, jobs.checkpoints.list):
        with pytest.raises(openai.NotFoundError) as caught:
            call("ftjob-nowhere")
        assert (caught.value.code, caught.value.param) == ("job_not_found", "fine_tuning_job_id")
    with pytest.raises(openai.NotFoundError):
        jobs.list(after="ftjob-nowhere")


def test_events_tell_the_whole_story_newest_first(api: openai.OpenAI, rows: Database, job: FineTuningJob) -> None:
    setup = ClaimedJob(rows, claim(rows, "setup"))
    setup.log("Validating training file: notes.jsonl")
    _succeed(setup)
    training = ClaimedJob(rows, claim(rows, "training"))
    training.log("Fine-tuning job started")
    numbers = {"step": 1, "total_steps": 1, "train_loss": 0.5, "train_mean_token_accuracy": 0.75}
    training.log("Step 1/1: training loss=0.50", type="metrics", data=numbers)
    training.log("The job has successfully completed")
    _succeed(training)
    events = list(api.fine_tuning.jobs.list_events(job.id, limit=2))
    assert [one.message for one in events] == [
        "The job has successfully completed",
        "Step 1/1: training loss=0.50",
        "Fine-tuning job started",
        "Files validated, moving job to queued state",
        "Validating training file: notes.jsonl",
        f"Created fine-tuning job: {job.id}",
    ]
    assert (events[1].type, events[1].data) == ("metrics", numbers)
    assert {one.type for one in events} == {"message", "metrics"}


def test_a_failed_setup_says_so_in_the_events(api: openai.OpenAI, rows: Database, job: FineTuningJob) -> None:
    with rows.write() as session:
        JobRepository(session).fail(claim(rows, "setup"), CorruptDocument("Line 3 is no JSON."))
    events = api.fine_tuning.jobs.list_events(job.id).data
    assert ("error", "The job is failed: Line 3 is no JSON.") in [(one.level, one.message) for one in events]


def test_a_cursor_that_is_no_event_is_refused(api: openai.OpenAI, job: FineTuningJob) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        api.fine_tuning.jobs.list_events(job.id, after="odd")
    assert caught.value.param == "after"


def test_checkpoints_are_listed_with_their_models(api: openai.OpenAI, rows: Database, job: FineTuningJob) -> None:
    for step in (2, 4, 6):
        _add_checkpoint(rows, job.id, step, train_loss=0.5, valid_loss=0.25)
    found = list(api.fine_tuning.jobs.checkpoints.list(job.id, limit=2))
    assert [one.step_number for one in found] == [6, 4, 2]
    newest = found[0]
    assert newest.fine_tuned_model_checkpoint == (
        f"ft:demo:default:handbook:{job.id.removeprefix('ftjob-')}:ckpt-step-6"
    )
    assert (newest.fine_tuning_job_id, newest.metrics.step, newest.metrics.full_valid_loss) == (job.id, 6, 0.25)
    with pytest.raises(openai.NotFoundError):
        api.fine_tuning.jobs.checkpoints.list(job.id, after="version-nowhere")


def test_cancel_pause_and_resume_take_a_json_type_and_no_body(client: TestClient, job: FineTuningJob) -> None:
    def post(verb: str) -> httpx.Response:
        headers = {"content-type": "application/json"}
        return client.post(f"/v1/fine_tuning/jobs/{job.id}/{verb}", headers=headers)

    assert [post(verb).status_code for verb in ("pause", "resume", "cancel", "cancel")] == [200, 200, 200, 400]
