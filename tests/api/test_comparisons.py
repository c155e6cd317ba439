"""Comparisons over HTTP: which evaluation is meant, and the answers that changed."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.testclient import TestClient

from shared.comparison import pairs_of
from shared.database import Database
from shared.evaluation_report import METRICS
from shared.settings import Settings
from shared.storage import Storage
from tests.evaluated import BASE, ONE, TWO, evaluated, evaluation, example, report

PATH = "/fine-tuning/comparisons"
ROWS = [
    example(number, {"base": 0.5, "handbook@1": number / 24, "handbook@2": 1.0 - number / 24}) for number in range(25)
]


@pytest.fixture
def storage(settings: Settings) -> Storage:
    return Storage(settings.data_dir)


def compared(client: TestClient, **wanted: Any) -> dict[str, Any]:
    answer = client.get(PATH, params=wanted)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def test_the_answers_that_changed_most_stand_side_by_side(client: TestClient, rows: Database, storage: Storage) -> None:
    job_id = evaluated(rows, storage, report((BASE, ONE, TWO)), ROWS)
    found = compared(client, evaluation_id=job_id, baseline="base", candidate="handbook@2", limit=3)
    assert (found["object"], found["evaluation_id"]) == ("comparison", job_id)
    assert (found["baseline"], found["candidate"]) == ("base", "handbook@2")
    assert (found["metric"], found["source"]) == ("f1", "questions")
    assert [one["number"] for one in found["better"]] == [0, 1, 2]
    assert [one["number"] for one in found["worse"]] == [24, 23, 22]
    assert found["better"][0] == {
        "number": 0, "question": "Question 0?", "wanted": "That.", "baseline_answer": "base says 0",
        "candidate_answer": "handbook@2 says 0", "baseline_value": 0.5, "candidate_value": 1.0,
    }  # fmt: skip
    assert found["pairs"] == [pair.model_dump(mode="json") for pair in report((BASE, ONE, TWO)).pairs]


def test_a_pair_that_the_job_has_not_reckoned_is_reckoned_then(
    client: TestClient, rows: Database, storage: Storage
) -> None:
    job_id = evaluated(rows, storage, report((BASE, ONE, TWO)), ROWS)
    found = compared(client, evaluation_id=job_id, baseline="handbook@1", candidate="handbook@2")
    assert found["pairs"] == [one.model_dump(mode="json") for one in pairs_of("handbook@1", ["handbook@2"], ROWS)]
    assert len(found["better"]) == len(found["worse"]) == 10


def test_the_latest_evaluation_of_an_adapter_that_has_both_is_meant(
    client: TestClient, rows: Database, storage: Storage
) -> None:
    evaluated(rows, storage, report((BASE, ONE, TWO)), ROWS)
    latest = evaluated(rows, storage, report((BASE, ONE, TWO)), ROWS)
    evaluated(rows, storage, report((BASE, TWO)), ROWS)
    evaluation(rows, (BASE, ONE, TWO))
    assert compared(client, adapter="handbook", baseline="1", candidate="2")["evaluation_id"] == latest
    assert compared(client, adapter="handbook", baseline="base", candidate="1")["candidate"] == "handbook@1"
    client.delete(f"/fine-tuning/evaluations/{latest}")
    assert compared(client, adapter="handbook", baseline="1", candidate="2")["evaluation_id"] != latest


def test_what_cannot_be_compared_is_refused_and_said(client: TestClient, rows: Database, storage: Storage) -> None:
    job_id, waiting = evaluated(rows, storage, examples=ROWS), evaluation(rows)
    both = {"baseline": "base", "candidate": "handbook@1"}
    refusals: list[tuple[dict[str, Any], int]] = [
        (both, 422),
        ({**both, "evaluation_id": job_id, "adapter": "handbook"}, 422),
        ({**both, "evaluation_id": "eval-none"}, 404),
        ({**both, "evaluation_id": waiting}, 404),
        ({"evaluation_id": job_id, "baseline": "base"}, 422),
        ({"evaluation_id": job_id, "baseline": "base", "candidate": "base"}, 422),
        ({"evaluation_id": job_id, "baseline": "base", "candidate": "handbook@9"}, 422),
        ({"evaluation_id": job_id, "baseline": "\x00", "candidate": "x" * 256}, 422),
        ({"evaluation_id": job_id, "baseline": "x" * 257, "candidate": "base"}, 422),
        ({**both, "evaluation_id": job_id, "metric": "length"}, 422),
        ({**both, "evaluation_id": job_id, "source": "nowhere"}, 422),
        ({**both, "evaluation_id": job_id, "limit": 101}, 422),
        ({"adapter": "handbook", "baseline": "1", "candidate": "9" * 200}, 404),
        ({"adapter": "nobody", "baseline": "1", "candidate": "2"}, 404),
        ({"adapter": "x/../y", "baseline": "1", "candidate": "2"}, 422),
    ]
    for wanted, status in refusals:
        answer = client.get(PATH, params=wanted)
        assert (answer.status_code, bool(answer.json()["detail"])) == (status, True), (wanted, answer.text)


def test_a_metric_that_nobody_measured_gives_no_answers(client: TestClient, rows: Database, storage: Storage) -> None:
    job_id = evaluated(rows, storage, examples=ROWS)
    wanted = {"evaluation_id": job_id, "baseline": "base", "candidate": "handbook@1", "metric": "bleu"}
    found = compared(client, **wanted)
    assert (found["metric"], found["better"], found["worse"]) == ("bleu", [], [])


def test_the_metrics_that_can_be_asked_for_are_those_with_a_direction(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()["paths"][PATH]["get"]["parameters"]
    (metric,) = (one for one in schema if one["name"] == "metric")
    assert set(metric["schema"]["anyOf"][0]["enum"]) == {
        name for name, is_more in METRICS.items() if is_more is not None
    }
