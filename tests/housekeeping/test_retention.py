"""Retention: what is old goes, and what somebody may still want stays."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import text

from shared.housekeeping.retention import retain
from shared.models import IdempotencyKey, ModelCheckpoint, Upload, UploadPart, WebhookDelivery, WebhookEndpoint
from shared.repositories.adapters import AdapterRepository
from shared.repositories.idempotency import IdempotencyRepository
from shared.repositories.jobs import JobRepository
from shared.repositories.webhooks import DELIVERY_DAYS, WebhookRepository
from shared.settings import Settings
from shared.sweep_parameters import SWEEP, TRIAL
from tests.api.conftest import publish
from tests.housekeeping.conftest import House, write

DAY = 86_400.0


def _retain(house: House, **settings: Any) -> dict[str, int]:
    chosen = Settings(data_dir=house.storage.root, _env_file=None, **settings)
    return {what: number for what, number in retain(house.database, house.storage, chosen).items() if number}


def _publish(house: House, *numbers: int) -> None:
    for number in numbers:
        publish(house.database, "handbook", id=f"version-{number}")


def _kept(house: House) -> list[int]:
    with house.database.read() as session:
        adapters = AdapterRepository(session)
        return sorted(one.number for one in adapters.versions(adapters.get("default", "handbook")))


def test_by_default_all_versions_are_kept(house: House) -> None:
    _publish(house, 1, 2, 3, 4, 5)
    assert _retain(house) == {}
    assert _kept(house) == [1, 2, 3, 4, 5]


def test_the_newest_versions_beside_the_live_one_are_kept(house: House) -> None:
    _publish(house, 1, 2, 3, 4, 5)
    assert _retain(house, keep_versions=2) == {"versions beyond keep_versions": 2}
    assert _kept(house) == [3, 4, 5]
    assert _retain(house, keep_versions=2) == {}


def test_the_live_version_and_the_one_to_go_back_to_stay_however_old_they_are(house: House) -> None:
    _publish(house, 1, 2, 3, 4, 5)
    with house.database.write() as session:
        AdapterRepository(session).promote("default", "handbook", 2, "older is better")
        AdapterRepository(session).promote("default", "handbook", 1, "the oldest is the best")
    assert _retain(house, keep_versions=1) == {"versions beyond keep_versions": 2}
    assert _kept(house) == [1, 2, 5]
    with house.database.write() as session:
        assert AdapterRepository(session).rollback("default", "handbook", "").live_number == 2


def test_the_version_that_answers_for_a_broken_live_one_stays(house: House) -> None:
    _publish(house, 1, 2, 3, 4)
    with house.database.write() as session:
        for number in (2, 3, 4):
            AdapterRepository(session).mark_broken(f"version-{number}", "damaged")
    _retain(house, keep_versions=1)
    assert _kept(house) == [1, 3, 4]


@pytest.mark.parametrize("kind", ["batch", "export"])
def test_a_version_that_a_job_works_with_stays_until_the_job_has_ended(house: House, kind: str) -> None:
    _publish(house, 1, 2, 3)
    with house.database.write() as session:
        job = JobRepository(session).create("default", kind, {"adapter": "handbook", "version": 1})
    assert _retain(house, keep_versions=1) == {}
    house.cancel(job.id)
    assert _retain(house, keep_versions=1) == {"versions beyond keep_versions": 1}


def test_checkpoint_models_go_with_their_training_s_version(house: House) -> None:
    job_id = house.job()
    publish(house.database, "handbook", id="version-1", job_id=job_id)
    _publish(house, 2)
    _keep_weights(house, job_id, "version-c")
    assert _retain(house) == {}
    with house.database.write() as session:
        AdapterRepository(session).delete_version("default", "handbook", 1)
    assert _retain(house) == {"checkpoints of deleted versions": 1}
    assert "adapters/version-c" in house.sweep()


@pytest.mark.parametrize("losses", [(2.0, 1.0, 3.0), (None, 1.0, 1.0)], ids=["different", "equal or none"])
def test_of_a_cancelled_sweep_the_weights_of_the_best_trial_stay_also_of_one_that_it_never_looked_at(
    house: House, losses: tuple[float | None, ...]
) -> None:
    sweeps = [house.job("sweep") for _ in range(2)]
    for sweep_id in sweeps:
        for number, loss in enumerate(losses):
            _trial(house, sweep_id, number, loss)
    alone = house.job()
    _keep_weights(house, alone, "version-alone")
    assert _retain(house) == {}  # it may still be the best
    house.cancel(sweeps[0])
    assert _retain(house) == {"weights of trials that were not the best": 2}
    assert _retain(house) == {}
    gone = {f"adapters/version-{sweeps[0]}-{number}" for number in (0, 2)}
    assert {one for one in house.sweep() if one.startswith("adapters/")} == gone
    house.cancel(sweeps[1])
    assert _retain(house) == {"weights of trials that were not the best": 2}


def _trial(house: House, sweep_id: str, number: int, loss: float | None) -> None:
    """One whose training has succeeded."""
    with house.database.write() as session:
        jobs = JobRepository(session)
        job_id = jobs.create("default", "training", {SWEEP: sweep_id, TRIAL: number}).id
        claim = jobs.claim_next("training", "worker-1", 60.0)
        assert claim is not None
        jobs.succeed(claim, {"metrics": {} if loss is None else {"validation_loss": loss}})
    _keep_weights(house, job_id, f"version-{sweep_id}-{number}")


def _keep_weights(house: House, job_id: str, checkpoint_id: str) -> None:
    described: dict[str, Any] = {"adapter": "handbook", "base_model": "demo", "metrics": {}, "size_bytes": 1}
    write(house.storage.version(checkpoint_id) / "adapter_model.safetensors")
    with house.database.write() as session:
        session.add(ModelCheckpoint(id=checkpoint_id, project_id="default", job_id=job_id, step=3, **described))


def test_documents_whose_time_is_over_go_in_every_project(house: House) -> None:
    house.document("file-over", expires_at=1.0)
    house.document("file-kept", expires_at=9e9)
    assert _retain(house) == {"expired documents": 1}
    assert "documents/file-over" in house.sweep()
    assert house.storage.document("file-kept").exists()


def test_parts_of_uploads_that_have_ended_go_with_their_bytes(house: House) -> None:
    described: dict[str, Any] = {"filename": "a.txt", "purpose": "batch", "mime_type": "text/plain", "size_bytes": 5}
    with house.database.write() as session:
        for name, expires_at in (("over", 1.0), ("open", 9e9)):
            session.add(Upload(id=f"upload_{name}", project_id="default", expires_at=expires_at, **described))
            session.flush()
            session.add(UploadPart(id=f"part_{name}", upload_id=f"upload_{name}", size_bytes=5))
    paths = [write(house.storage.upload_part(f"part_{name}")) for name in ("over", "open")]
    assert _retain(house) == {"parts of ended uploads": 1}
    assert [path.exists() for path in paths] == [False, True]


def test_idempotency_keys_are_kept_for_more_than_a_day(house: House) -> None:
    with house.database.write() as session:
        keys = IdempotencyRepository(session)
        for age in (1.0, 3.0):
            keys.remember("default", f"{age} days", "0" * 64, {})
        session.flush()
        for age in (1.0, 3.0):
            row = session.get_one(IdempotencyKey, ("default", f"{age} days"), populate_existing=True)
            row.created_at -= age * DAY
    assert _retain(house) == {"idempotency keys": 1}
    with house.database.read() as session:
        assert session.get(IdempotencyKey, ("default", "1.0 days")) is not None


def test_forgotten_deliveries_are_not_made_again(house: House) -> None:
    """The end of the job is known for ever; that it was told of, for so many days."""
    with house.database.write() as session:
        endpoint = WebhookRepository(session).create(
            "default", "https://x.example/", "s", ["fine_tuning.job.cancelled"]
        )
        session.get_one(WebhookEndpoint, endpoint.id).created_at = 1.0
    job_id = house.job()
    house.cancel(job_id)
    with house.database.write() as session:
        assert len(WebhookRepository(session).undelivered(0.0)) == 1
        WebhookRepository(session).add_undelivered(0.0)
        session.execute(text("UPDATE webhook_deliveries SET status = 'delivered'"))
    assert _retain(house) == {}
    _age_deliveries(house, DELIVERY_DAYS + 0.5)
    assert _retain(house) == {"webhook deliveries": 1}
    with house.database.read() as session:
        assert WebhookRepository(session).undelivered(0.0) == []


def test_a_delivery_that_is_still_to_be_made_stays(house: House) -> None:
    test_forgotten = {"id": "delivery-1", "event_id": "evt_1", "event_type": "x", "payload": {}, "due_at": 1.0}
    with house.database.write() as session:
        endpoint = WebhookRepository(session).create("default", "https://x.example/", "s", [])
        session.add(WebhookDelivery(endpoint_id=endpoint.id, created_at=1.0, **test_forgotten))
    assert _retain(house) == {}


def _age_deliveries(house: House, days: float) -> None:
    aged = {"s": days * DAY}
    with house.database.write() as session:
        session.execute(text("UPDATE webhook_deliveries SET created_at = created_at - :s"), aged)
        session.execute(text("UPDATE jobs SET finished_at = finished_at - :s"), aged)
