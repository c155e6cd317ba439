from __future__ import annotations

import pytest
from fastapi.testclient import TestClient

from shared.database import Database
from shared.models import Dataset
from shared.promotion_policy import PromotionPolicy, decide
from shared.repositories.datasets import DatasetRepository
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from tests.api.conftest import Upload, publish


@pytest.fixture
def two_versions(client: TestClient, rows: Database) -> TestClient:
    publish(rows, "handbook", id="version-1")
    publish(rows, "handbook", id="version-2", metrics={"validation_loss": 1.2}, config={"lora_rank": 8})
    return client


def test_adapters_are_listed_by_name(client: TestClient, rows: Database) -> None:
    for name in ("zebra", "apple", "mango"):
        publish(rows, name)
    page = client.get("/fine-tuning/adapters", params={"limit": 2}).json()
    assert [one["name"] for one in page["data"]] == ["apple", "mango"]
    rest = client.get("/fine-tuning/adapters", params={"after": page["last_id"]}).json()
    assert [(one["name"], one["live_version"], one["model"]) for one in rest["data"]] == [("zebra", 1, "demo")]


def test_adapters_are_found_by_how_their_names_begin(client: TestClient, rows: Database) -> None:
    for name in ("hand", "handbook", "Handbook", "h_ndbook", "other"):
        publish(rows, name)

    def found(prefix: str, **more: object) -> list[str]:
        query = {"prefix": prefix, **more}
        return [one["name"] for one in client.get("/fine-tuning/adapters", params=query).json()["data"]]

    assert found("hand") == ["hand", "handbook"]
    assert found("hand", after="hand") == ["handbook"]
    assert found("h_") == ["h_ndbook"]
    assert (found("%"), len(found(""))) == ([], 5)


def test_an_adapter_shows_versions_and_history(two_versions: TestClient) -> None:
    adapter = two_versions.get("/fine-tuning/adapters/handbook").json()
    assert (adapter["live_version"], adapter["num_versions"]) == (2, 2)
    assert [(one["version"], one["live"]) for one in adapter["versions"]] == [(2, True), (1, False)]
    assert adapter["versions"][0]["metrics"] == {"validation_loss": 1.2}
    assert adapter["versions"][0]["config"] == {"lora_rank": 8}
    assert [(one["action"], one["to_version"]) for one in adapter["history"]] == [("publish", 2), ("publish", 1)]


def test_a_version_names_the_documents_it_learned_from(client: TestClient, rows: Database, upload: Upload) -> None:
    document_id = upload(name="handbook.md")
    with rows.write() as session:
        jobs = JobRepository(session)
        setup, training = jobs.create("default", "setup", {}), jobs.create("default", "training", {})
        dataset = Dataset(
            id="d",
            project_id="default",
            job_id=setup.id,
            fingerprint="f",
            base_model="demo",
            statistics={"examples": 3},
        )
        DatasetRepository(session).add(dataset, [document_id])
    publish(rows, "handbook", dataset_id="d", job_id=training.id)
    client.delete(f"/documents/{document_id}")
    lineage = client.get("/fine-tuning/adapters/handbook").json()["versions"][0]["lineage"]
    assert (lineage["job_id"], lineage["setup_job_id"]) == (training.id, setup.id)
    assert (lineage["dataset_fingerprint"], lineage["dataset_statistics"]) == ("f", {"examples": 3})
    assert [(one["id"], one["filename"], one["deleted"]) for one in lineage["documents"]] == [
        (document_id, "handbook.md", True)
    ]


def test_promotion_and_rollback_move_the_live_version(two_versions: TestClient) -> None:
    promoted = two_versions.post("/fine-tuning/adapters/handbook/promote", json={"version": 1, "reason": "shorter"})
    assert promoted.json()["live_version"] == 1
    assert promoted.json()["history"][0]["reason"] == "shorter"
    assert two_versions.post("/fine-tuning/adapters/handbook/rollback").json()["live_version"] == 2


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("GET", "/nobody", None, 404, "adapter_not_found"),
        ("POST", "/nobody/promote", {"version": 1}, 404, "adapter_not_found"),
        ("POST", "/handbook/promote", {"version": 9}, 404, "version_not_found"),
        ("POST", "/handbook/promote", {}, 422, "invalid_request"),
        ("POST", "/nobody/rollback", None, 404, "adapter_not_found"),
        ("DELETE", "/handbook/versions/2", None, 409, "version_in_use"),
        ("DELETE", "/handbook/versions/9", None, 404, "version_not_found"),
    ],
)
def test_what_is_not_there_or_in_use_is_refused(
    two_versions: TestClient, method: str, path: str, body: object, status: int, code: str
) -> None:
    answer = two_versions.request(method, f"/fine-tuning/adapters{path}", json=body)
    assert (answer.status_code, answer.json()["error"]) == (status, code)


def test_a_deleted_version_is_gone_with_its_files(two_versions: TestClient, settings: Settings) -> None:
    folder = settings.data_dir / "adapters" / "version-1"
    folder.mkdir()
    (folder / "adapter_model.safetensors").write_bytes(b"weights")
    answer = two_versions.delete("/fine-tuning/adapters/handbook/versions/1").json()
    assert (answer["adapter"], answer["version"], answer["deleted"]) == ("handbook", 1, True)
    assert not folder.exists()
    assert list((settings.data_dir / "staging").iterdir()) == []
    assert [one["version"] for one in two_versions.get("/fine-tuning/adapters/handbook").json()["versions"]] == [2]


def test_a_policy_is_set_before_the_first_version_and_shown_with_the_adapter(
    client: TestClient, rows: Database
) -> None:
    default = client.get("/fine-tuning/adapters/handbook/policy").json()
    assert default == {"mode": "if_better", "min_improvement": 0.0, "min_examples": 20, "against": ["base", "live"]}
    wanted = {"mode": "manual", "min_improvement": 0.1, "min_examples": 5, "against": ["base"]}
    assert client.put("/fine-tuning/adapters/handbook/policy", json=wanted).json() == wanted
    assert client.get("/fine-tuning/adapters/handbook/policy").json() == wanted
    assert client.get("/fine-tuning/adapters/handbook").status_code == 404
    publish(rows, "handbook")
    assert client.get("/fine-tuning/adapters/handbook").json()["policy"] == wanted
    assert client.get("/fine-tuning/adapters").json()["data"][0]["policy"] == wanted


@pytest.mark.parametrize("wrong", [{"mode": "sometimes"}, {"min_improvement": -1}, {"against": ["rag"]}, {"more": 1}])
def test_a_policy_that_makes_no_sense_is_refused(client: TestClient, wrong: dict[str, object]) -> None:
    assert client.put("/fine-tuning/adapters/handbook/policy", json=wrong).status_code == 422
    assert client.put("/fine-tuning/adapters/no%20name/policy", json={}).status_code == 422


def test_a_held_version_stands_in_the_history_and_is_promoted_by_hand(client: TestClient, rows: Database) -> None:
    publish(rows, "handbook", decision=decide(PromotionPolicy(mode="always")))
    publish(rows, "handbook", id="version-2", decision=decide(PromotionPolicy(mode="manual")))
    adapter = client.get("/fine-tuning/adapters/handbook").json()
    assert adapter["live_version"] == 1
    assert adapter["num_versions"] == 2
    held, first = adapter["history"]
    assert (held["action"], held["from_version"], held["to_version"]) == ("hold", 1, 1)
    assert held["reason"].startswith("version 2: ")
    assert (held["decision"]["is_promoted"], first["decision"]["is_promoted"]) == (False, True)
    assert client.post("/fine-tuning/adapters/handbook/rollback").status_code == 409
    promoted = client.post("/fine-tuning/adapters/handbook/promote", json={"version": 2}).json()
    assert (promoted["live_version"], promoted["history"][0]["decision"]) == (2, None)
    assert client.post("/fine-tuning/adapters/handbook/rollback").json()["live_version"] == 1


def test_a_first_version_that_lost_is_not_live_and_is_not_asked_by_the_adapters_name(
    client: TestClient, rows: Database
) -> None:
    publish(rows, "handbook", decision=decide(PromotionPolicy(mode="manual")))
    adapter = client.get("/fine-tuning/adapters/handbook").json()
    assert (adapter["live_version"], adapter["model"], adapter["num_versions"]) == (None, None, 1)
    assert client.get("/fine-tuning/status").json()["trained"] is False
    assert client.get("/v1/models/handbook").status_code == 404


@pytest.mark.parametrize("wanted", ["manual", "always", "if_better"])
def test_a_training_is_told_whether_its_version_goes_live(
    client: TestClient, rows: Database, upload: Upload, wanted: str
) -> None:
    document = upload(name="handbook.md")
    made = client.post("/fine-tuning/setup", json={"promotion": wanted, "model": "demo"}).json()
    setup_id = made["job_id"]
    again = client.post("/fine-tuning/train", json={"setup_job_id": setup_id, "promotion": wanted}).json()["job_id"]
    with rows.read() as session:
        jobs = JobRepository(session)
        for job_id in (made["training_job_id"], again):
            assert jobs.get("default", job_id).parameters["promotion"] == wanted
    assert document
    assert client.post("/fine-tuning/setup", json={"promotion": "maybe"}).status_code == 422
