"""What Prometheus and Grafana ask for is what `/metrics` shows."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.core import Metric

from api.metrics.families import Readings, RunningTraining, VersionQuality
from api.metrics.requests import RequestMeasures
from shared.repositories.job_statistics import Durations, Queue
from tests.api.test_metrics import MEASURES

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


def shown() -> set[str]:
    """The names of all samples that the API can show."""
    readings = Readings(
        workers={"inference-1": MEASURES},
        num_workers={"inference": 1},
        num_jobs={"queued": 1},
        queues=[Queue("setup", 1, 2.0)],
        durations=[Durations("setup", "failed", 1, 2.0)],
        trainings=[RunningTraining("default", "ftjob-1", {})],
        num_waiting=0,
        qualities=list[VersionQuality](),
    )
    families = [*readings.collect(), *RequestMeasures().registry.collect()]
    return {name for family in families for name in names_of(family)} | {"process_resident_memory_bytes", "up"}


def names_of(family: Metric) -> Iterator[str]:
    for suffix in SUFFIXES.get(family.type, ("",)):
        yield family.name + suffix


def expressions() -> list[Any]:
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    dashboard = json.loads((MONITORING / "grafana" / "dashboards" / "finetuned.json").read_text())
    targets = [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", [])]
    return [*((rule["alert"], rule["expr"]) for rule in rules), *targets]


@pytest.mark.parametrize(("title", "expression"), expressions())
def test_an_expression_asks_for_measures_that_exist(title: str, expression: str) -> None:
    asked = set(re.findall(r"\b(?:finetuned|process)_\w+", expression))
    assert asked or "up{" in expression
    assert asked <= shown()


def test_every_alert_says_what_it_means_and_what_to_do() -> None:
    for rule in yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]:
        assert rule["annotations"].keys() == {"summary", "action"}
        assert rule["labels"]["severity"] in ("page", "ticket")


def test_no_panel_lies_over_another() -> None:
    dashboard = json.loads((MONITORING / "grafana" / "dashboards" / "finetuned.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + i, place["y"] + j) for i in range(place["w"]) for j in range(place["h"])}
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
