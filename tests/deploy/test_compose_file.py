"""The compose files and Dockerfiles keep their promises; no Docker needed."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from shared.settings import Settings

ROOT = Path(__file__).parents[2]
DOCKERFILES = ("api.Dockerfile", "worker.Dockerfile")
DEFAULT_PASSWORD = "finetuned"  # documented: to be changed before the first start

Service = dict[str, Any]


def compose(name: str = "docker-compose.yml") -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / name).read_text())
    return found


def services() -> dict[str, Service]:
    found: dict[str, Service] = compose()["services"]
    return found


def dockerfile(name: str) -> str:
    return (ROOT / "deploy" / name).read_text()


each_service = pytest.mark.parametrize("service", services().values(), ids=services().keys())
each_dockerfile = pytest.mark.parametrize("name", DOCKERFILES)
lasting = [name for name in services() if name != "init"]


def test_the_stack_has_the_parts_of_the_design() -> None:
    assert set(services()) == {
        "api", "init", "setup", "batch", "trainer", "inference", "retrieval", "sweep", "redis", "postgres",
        "prometheus", "grafana",
    }  # fmt: skip
    watching = {name for name, service in services().items() if service.get("profiles") == ["monitoring"]}
    assert watching == {"prometheus", "grafana"}


def test_only_what_people_look_at_publishes_a_port_and_on_loopback_alone() -> None:
    published = {name: service["ports"] for name, service in services().items() if "ports" in service}
    assert published == {
        "api": ["127.0.0.1:${FINETUNED_PORT:-8000}:8000"],
        "grafana": ["127.0.0.1:${GRAFANA_PORT:-3000}:3000"],
    }


def test_the_api_is_open_without_keys_only_behind_a_port_that_others_do_not_reach() -> None:
    keyless = {name for name, one in services().items() if "FINETUNED_ALLOW_KEYLESS" in one.get("environment", {})}
    assert keyless == {"api"}
    assert services()["api"]["environment"]["FINETUNED_ALLOW_KEYLESS"] == "${FINETUNED_ALLOW_KEYLESS:-true}"
    assert all(port.startswith("127.0.0.1:") for port in services()["api"]["ports"])


def test_the_databases_reach_nothing_outside() -> None:
    assert compose()["networks"]["inside"] == {"internal": True}
    for name in ("redis", "postgres", "init"):
        assert services()[name]["networks"] == ["inside"]


@each_service
def test_a_service_is_hardened(service: Service) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["init"] is True
    assert 0 < service["pids_limit"] <= 4096
    assert "/tmp" in service["tmpfs"]  # noqa: S108 - the container's own
    assert "privileged" not in service
    assert "cap_add" not in service


@each_service
def test_a_service_runs_as_no_root(service: Service) -> None:
    assert service["user"].split(":")[0] in ("10001", "postgres")


@pytest.mark.parametrize("name", lasting)
def test_a_service_that_stays_has_a_health_check_and_comes_back(name: str) -> None:
    service = services()[name]
    assert service["healthcheck"]["test"][0] in ("CMD", "CMD-SHELL")
    assert service["restart"] == "unless-stopped"


@pytest.mark.parametrize("name", ["api", "setup", "batch", "trainer", "inference", "retrieval", "sweep"])
def test_our_services_wait_until_what_they_need_is_there(name: str) -> None:
    conditions = {needed: one["condition"] for needed, one in services()[name]["depends_on"].items()}
    assert conditions["redis"] == conditions["postgres"] == "service_healthy"
    assert conditions["init"] == "service_completed_successfully"


def test_one_service_builds_each_image_and_the_others_start_after_it() -> None:
    # Two builds that end in one tag collide; a service that comes first, without its image, would try to pull it.
    builders = {service["image"]: name for name, service in services().items() if "build" in service}
    assert builders == {"finetuned-api": "init", "finetuned-worker": "setup"}
    assert sum("build" in service for service in services().values()) == len(builders)
    for name, service in services().items():
        builder = builders.get(service["image"], name)
        assert builder == name or builder in service["depends_on"]


@pytest.mark.parametrize("name", ["setup", "batch", "trainer", "sweep"])
def test_a_worker_may_stop_its_job_and_hand_it_back_before_it_is_killed(name: str) -> None:
    grace_seconds = float(services()[name]["stop_grace_period"].removesuffix("s"))
    assert grace_seconds >= Settings.model_fields["stop_timeout_seconds"].default + 30


@pytest.mark.parametrize("name", ["api", "setup", "batch", "trainer", "inference", "retrieval", "sweep"])
def test_every_setting_can_be_set_from_outside_or_is_the_composition_s_own(name: str) -> None:
    fixed = {"data_dir", "database_url", "redis_url", "model_cache_dir", "host", "port", "allow_keyless"}
    fixed |= {"log_format", "allowed_hosts", "metrics_host", "metrics_port"}
    passed_on = {key for key, value in services()[name]["environment"].items() if value is None}
    wanted = {f"FINETUNED_{field.upper()}" for field in Settings.model_fields if field not in fixed}
    assert {key for key in passed_on if key.startswith("FINETUNED_")} == wanted


def test_logs_are_json_unless_somebody_wants_text() -> None:
    for name in ("api", "init", "setup", "batch", "trainer", "inference", "retrieval", "sweep"):
        assert services()[name]["environment"]["FINETUNED_LOG_FORMAT"] == "${FINETUNED_LOG_FORMAT:-json}"


def test_redis_keeps_its_messages_and_asks_for_a_password() -> None:
    command = services()["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--appendonly"] == "yes"
    assert options["--maxmemory-policy"] == "noeviction"
    assert options["--requirepass"] == f"${{REDIS_PASSWORD:-{DEFAULT_PASSWORD}}}"


def test_what_must_last_lies_on_named_volumes() -> None:
    assert {name for name, options in compose()["volumes"].items() if not options} == {
        "data", "models", "queue", "database", "metrics"
    }  # fmt: skip
    assert services()["postgres"]["environment"]["PGDATA"].startswith("/var/lib/postgresql/")
    assert "database:/var/lib/postgresql" in services()["postgres"]["volumes"]


@pytest.mark.parametrize("name", ["docker-compose.yml", "docker-compose.gpu.yml"])
def test_no_secret_stands_in_the_file_but_the_documented_default(name: str) -> None:
    text = (ROOT / name).read_text()
    defaults = re.findall(r"\$\{\w*(?:PASSWORD|TOKEN|SECRET)\w*(?::?-([^}]*))?\}", text)
    assert set(defaults) <= {DEFAULT_PASSWORD}
    hard_coded = re.findall(r"^\s*\w*(?:PASSWORD|TOKEN|SECRET|AUTH)\w*:[ \t]+(?!\$\{)(\S+)", text, re.MULTILINE)
    assert hard_coded == []


def test_the_base_images_are_those_that_were_chosen() -> None:
    assert services()["redis"]["image"] == "redis:7-bookworm"
    assert services()["postgres"]["image"] == "postgres:15-bookworm"
    for name in DOCKERFILES:
        stages = re.findall(r"^FROM (\S+)", dockerfile(name), re.MULTILINE)
        assert set(stages) == {"python:3.11-slim-bookworm"}


@each_dockerfile
def test_an_image_needs_no_buildkit(name: str) -> None:
    text = dockerfile(name)
    assert not re.search(r"^# *syntax=|--mount=|<<[-'\"A-Z]|COPY[^\n]* --(link|chmod|parents)", text, re.MULTILINE)


@each_dockerfile
def test_an_image_runs_as_no_root_and_logs_at_once(name: str) -> None:
    text = dockerfile(name)
    assert re.findall(r"^USER (\S+)", text, re.MULTILINE) == ["10001:10001"]
    assert "PYTHONUNBUFFERED=1" in text
    assert "STOPSIGNAL SIGTERM" in text


@each_dockerfile
def test_code_is_copied_after_the_packages_are_installed(name: str) -> None:
    text = dockerfile(name)
    assert text.rindex("pip --python") < text.index("COPY shared shared")


def test_the_api_image_takes_no_worker_and_no_torch() -> None:
    instructions = "\n".join(line for line in dockerfile("api.Dockerfile").splitlines() if not line.startswith("#"))
    assert "torch" not in instructions.lower()
    assert "worker" not in instructions
    assert "requirements.py api tracing\n" in instructions


def test_the_build_context_leaves_out_all_but_what_the_images_need() -> None:
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    wanted = {line[1:] for line in lines if line.startswith("!")}
    assert wanted == {
        "pyproject.toml", "constraints.txt", "api", "shared", "ui", "worker", "deploy/requirements.py", "deploy/wheels"
    }  # fmt: skip


@pytest.mark.parametrize(
    "path", ["docker-compose.yml", "docker-compose.gpu.yml", *(f"deploy/{name}" for name in DOCKERFILES)]
)
def test_no_registry_and_no_host_is_named(path: str) -> None:
    urls = re.findall(r"\w+://(\S+)", (ROOT / path).read_text())
    ours = ("finetuned:${POSTGRES_PASSWORD", ":${REDIS_PASSWORD", "127.0.0.1")
    assert [url for url in urls if not url.startswith(ours)] == []


def test_every_torch_that_is_named_is_the_pinned_one() -> None:
    pinned = re.findall(r"^torch==(\S+)", (ROOT / "constraints.txt").read_text(), re.MULTILINE)
    paths = ("docker-compose.yml", "docker-compose.gpu.yml", "deploy/worker.Dockerfile")
    named = [version for path in paths for version in re.findall(r"torch={2,3}([\d.]+\d)", (ROOT / path).read_text())]
    assert len(named) == len(paths)
    assert set(named) == set(pinned)


def test_with_a_gpu_the_trainer_and_the_inference_worker_get_it_and_a_cuda_torch() -> None:
    gpu = compose("docker-compose.gpu.yml")["services"]
    for name in ("trainer", "inference"):
        devices = gpu[name]["deploy"]["resources"]["reservations"]["devices"]
        assert [(one["driver"], "gpu" in one["capabilities"]) for one in devices] == [("nvidia", True)]
    assert {service["image"] for service in gpu.values()} == {"finetuned-worker:gpu"}
    assert gpu["setup"]["build"]["args"]["TORCH"].startswith("${TORCH:-torch===")


def test_an_image_installs_the_core_and_its_extras_with_every_pin_but_torchs(
    tmp_path: Path,
) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text())
    (tmp_path / "constraints.txt").write_text("# pins\nTorch==2.13.0\nfastapi==0.165.0  # why\ntorchlike==1.0\n")

    subprocess.run([sys.executable, ROOT / "deploy" / "requirements.py", "api"], cwd=tmp_path, check=True)

    installed = (tmp_path / "packages.txt").read_text().splitlines()
    assert installed == [*project["dependencies"], *project["optional-dependencies"]["api"]]
    assert (tmp_path / "pins.txt").read_text().splitlines() == ["fastapi==0.165.0", "torchlike==1.0"]
    assert f"Version: {project['version']}\n" in (tmp_path / "METADATA").read_text()


@pytest.mark.parametrize(("name", "extras"), [("api.Dockerfile", ["api"]), ("worker.Dockerfile", ["worker"])])
def test_every_package_is_published_as_its_image_installs_it(tmp_path: Path, name: str, extras: list[str]) -> None:
    """The registry is asked; nothing is installed."""
    for needed in ("pyproject.toml", "constraints.txt"):
        (tmp_path / needed).write_text((ROOT / needed).read_text())
    subprocess.run([sys.executable, ROOT / "deploy" / "requirements.py", *extras, "tracing"], cwd=tmp_path, check=True)
    options = re.findall(r"--(?:only|no)-binary \S+", dockerfile(name).rpartition("pip --python")[2])
    asked = (
        "pip install --dry-run --quiet --ignore-installed --no-deps --constraint pins.txt --requirement packages.txt"
    )
    command = [sys.executable, "-m", *" ".join([asked, *options]).split()]
    answer = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
