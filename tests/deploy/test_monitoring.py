"""What Prometheus and Grafana ask for is what the API and the workers show."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import Metric

from api.metrics.families import LatestQuality, Readings
from api.metrics.requests import RequestMeasures
from shared.metric_families import RunningJob, families_of_inference
from shared.repositories.job_statistics import Durations, Queue
from shared.repositories.jobs import Claim
from shared.settings import Settings
from tests.api.test_metrics import MEASURES
from worker.gpus import Gpus
from worker.jobs.telemetry import Telemetry
from worker.retrieval.measures import IndexMeasures, ShownIndex

MONITORING = Path(__file__).parents[2] / "deploy" / "monitoring"
SUFFIXES = {"counter": ("_total",), "histogram": ("_bucket", "_sum", "_count"), "summary": ("_sum", "_count")}


class Nvml:
    """A driver with one GPU."""

    NVMLError = OSError
    nvmlDeviceGetCount = staticmethod(lambda: 1)  # noqa: N815 - the driver's names
    nvmlDeviceGetHandleByIndex = staticmethod(lambda index: index)  # noqa: N815
    nvmlDeviceGetName = staticmethod(lambda device: "Tiny GPU")  # noqa: N815
    nvmlDeviceGetMemoryInfo = staticmethod(lambda device: SimpleNamespace(used=3, total=4))  # noqa: N815
    nvmlDeviceGetUtilizationRates = staticmethod(lambda device: SimpleNamespace(gpu=50))  # noqa: N815


def of_the_api() -> list[Metric]:
    readings = Readings(
        workers={"inference-1": MEASURES},
        num_workers={"inference": 1},
        num_jobs={"queued": 1},
        queues=[Queue("setup", 1, 2.0)],
        durations=[Durations("setup", "failed", 1, 2.0)],
        trainings=[RunningJob("default", "ftjob-1", dict.fromkeys(("step", "train_loss"), 1))],
        sweeps=[RunningJob("default", "sweep-1", dict.fromkeys(("total_steps", "complete", "validation_loss"), 1))],
        num_waiting=0,
        qualities=list[LatestQuality](),
        versions=[],
    )
    return [*readings.collect(), *RequestMeasures().registry.collect()]


def of_the_workers() -> list[Metric]:
    registry = CollectorRegistry()
    telemetry = Telemetry(registry)
    telemetry.began(Claim("ftjob-1", "default", "training", 1, "training-1", {}))
    for collector in (
        Gpus(Nvml),
        ShownIndex(lambda: IndexMeasures(1, 2, 3, 4.0, 5, 6, 7, 8), lambda: 9),
        ProcessCollector(registry=None),
    ):
        registry.register(collector)
    return [*registry.collect(), *families_of_inference({"inference-1": MEASURES})]


def kept_of_the_api(family: Metric) -> bool:
    """Whether Prometheus keeps it, by its rules for the API."""
    api, *_ = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"]
    for rule in api["metric_relabel_configs"]:
        (source,), pattern = rule["source_labels"], rule["regex"]
        labelled = [one.labels.get(source, "") for one in family.samples]
        found = [*names_of(family)] if source == "__name__" else labelled
        if rule["action"] == "drop" and any(re.fullmatch(pattern, one) for one in found):
            return False
    return True


def shown() -> set[str]:
    """The names of all samples that Prometheus keeps."""
    families = [*filter(kept_of_the_api, of_the_api()), *of_the_workers()]
    return {name for family in families for name in names_of(family)} | {"up"}


def test_what_workers_show_themselves_is_not_taken_from_the_api_a_second_time() -> None:
    api = {family.name for family in of_the_api() if kept_of_the_api(family)}
    assert api & {family.name for family in of_the_workers()} == set()
    assert {"finetuned_workers", "finetuned_queue_age_seconds", "finetuned_requests"} <= api


def test_prometheus_looks_for_each_worker_by_its_name_and_at_its_port() -> None:
    composed = yaml.safe_load((MONITORING.parents[1] / "docker-compose.yml").read_text())["services"]
    scraped = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"][1]["dns_sd_configs"][0]
    workers = {name for name, one in composed.items() if one["image"] == "finetuned-worker"}
    assert set(scraped["names"]) == workers
    for name in workers:
        assert composed[name]["environment"]["FINETUNED_METRICS_PORT"] == str(scraped["port"])
        assert composed[name]["environment"]["FINETUNED_METRICS_HOST"] == "0.0.0.0"  # noqa: S104
        assert "inside" in composed[name]["networks"]
        assert "ports" not in composed[name]


def test_the_api_serves_the_name_by_which_prometheus_asks_it() -> None:
    composed = yaml.safe_load((MONITORING.parents[1] / "docker-compose.yml").read_text())["services"]["api"]
    default = re.fullmatch(r"\$\{FINETUNED_ALLOWED_HOSTS:-(.*)\}", composed["environment"]["FINETUNED_ALLOWED_HOSTS"])
    (target,) = yaml.safe_load((MONITORING / "prometheus.yml").read_text())["scrape_configs"][0]["static_configs"][0][
        "targets"
    ]
    assert default is not None
    allowed = json.loads(default[1])
    assert set(Settings.model_fields["allowed_hosts"].default) < set(allowed)
    assert target.partition(":")[0] in allowed


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed (Debian: prometheus)")
def test_prometheus_itself_takes_the_rules_and_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("")
    for name in ("alerts.yml", "prometheus.yml"):
        text = (MONITORING / name).read_text()
        (tmp_path / name).write_text(text.replace("/etc/prometheus/", f"{tmp_path}/"))
    for what, name in (("rules", "alerts.yml"), ("config", "prometheus.yml")):
        checked = subprocess.run(["promtool", "check", what, tmp_path / name], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr


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
