"""The quality of each version and its alarm: in the status and in the metrics, and read no more often than needed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update

from api.quality.reading import QualityReader
from shared.database import Database, now
from shared.models import AnswerRecord
from tests.api.test_metrics import samples
from tests.shared.test_answers_repository import add, row

DAY = 86_400.0


def drifted(rows: Database) -> None:
    """Version 1 has become unsure, version 2 is new, and another project has a version of its own."""
    earlier = [row(number, mean_logprob=-0.5 + number % 2 / 10) for number in range(200)]
    add(rows, *earlier)
    with rows.write() as session:
        session.execute(update(AnswerRecord).values(created_at=now() - 3 * DAY))
    add(rows, *(row(number, mean_logprob=-0.8, finish_reason="length") for number in range(200, 250)))
    add(rows, row(300, version=2, thumb="down"), row(301, version=2, thumb="up"))
    add(rows, row(302, project_id="theirs", repetition=0.25))


def test_the_status_shows_each_version_s_quality_and_says_what_has_drifted(client: TestClient, rows: Database) -> None:
    drifted(rows)
    first, second = client.get("/fine-tuning/status").json()["quality"]
    alarm = first.pop("drift")
    assert first == {
        "adapter": "handbook", "version": 1, "num_answers": 50, "mean_logprob": -0.8, "repetition": 0.0,
        "truncated_share": 1.0, "thumbs_up": 0, "thumbs_down": 0,
        "compared": ["mean_logprob", "repetition", "truncated"],
    }  # fmt: skip
    assert "the mean log-probability fell from -0.45 (200 answers of its first days) to -0.80 (50 answers" in alarm
    assert "the share of truncated answers rose from 0.00" in alarm
    assert (second["version"], second["thumbs_up"], second["thumbs_down"]) == (2, 1, 1)
    assert (second["compared"], second["drift"]) == ([], None)


def test_metrics_show_drift_by_version_and_signal_where_there_is_enough_to_compare(
    client: TestClient, rows: Database
) -> None:
    drifted(rows)
    seen = samples(client)
    # adapter, project, (signal,) version
    assert seen["finetuned_version_answers", "handbook", "default", "1"] == 50
    assert seen["finetuned_version_mean_logprob", "handbook", "default", "1"] == pytest.approx(-0.8)
    assert seen["finetuned_version_thumbs_down_ratio", "handbook", "default", "2"] == 0.5
    assert seen["finetuned_version_repetition_ratio", "handbook", "theirs", "1"] == 0.25
    assert seen["finetuned_version_drift", "handbook", "default", "mean_logprob", "1"] == 1
    assert seen["finetuned_version_drift", "handbook", "default", "repetition", "1"] == 0
    assert ("finetuned_version_drift", "handbook", "default", "thumbs_down", "1") not in seen
    assert ("finetuned_version_thumbs_down_ratio", "handbook", "default", "1") not in seen


def clock(times: Iterable[float]) -> Any:
    return iter(times).__next__


def test_what_took_long_to_read_is_not_read_again_at_once(rows: Database) -> None:
    reader = QualityReader(clock([100.0, 102.0, 141.9, 142.0, 142.5, 142.6]))  # two seconds, kept for forty
    add(rows, row(1))
    with rows.read() as session:
        assert reader.read(session, "default")[0].sums.num_answers == 1
    add(rows, row(2))
    with rows.read() as session:
        assert reader.read(session, "default")[0].sums.num_answers == 1
        assert reader.read(session, "default")[0].sums.num_answers == 2
        assert reader.read(session, "default")[0].sums.num_answers == 2
