"""Builds the images, runs the main job through the composed stack, restarts it, and takes it down: `make compose-test`.

Needs a Docker engine and `docker compose` (or docker-compose 1.29). The stack gets a project name, a port and volumes
of its own; whatever else runs on the engine is left alone.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parent.parent
DOCUMENTS = ROOT / "examples" / "handbook" / "documents"
UPLOADED = ("leave.md", "tools.txt", "staff-questions.csv")
PROJECT = "finetuned-compose-test"
SERVICES = {"api", "setup", "batch", "trainer", "inference", "retrieval", "sweep", "redis", "postgres"}
MACHINE_LEARNING = ("torch", "transformers", "peft", "datasets", "accelerate", "bitsandbytes")
GRACE_SECONDS = 120  # the trainer's stop_grace_period
QUESTION = "How many days of annual leave do I have?"

Json = dict[str, Any]


class CheckFailed(Exception):
    """The stack is not as it should be."""


def check(is_true: bool, otherwise: str) -> None:
    """Raises `CheckFailed` with the sentence `otherwise` unless `is_true`."""
    if not is_true:
        raise CheckFailed(otherwise)


def run(*command: str, is_quiet: bool = True) -> str:
    """The command's output; raises with its errors when it fails."""
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE if is_quiet else None, stderr=None)
    check(done.returncode == 0, f"`{' '.join(command[:6])} …` ended with code {done.returncode}")
    return (done.stdout or "").strip()


def wait_until(what: str, look: Callable[[], Any], timeout_seconds: float) -> Any:
    """What `look` returns once that is true; raises when it does not come in time."""
    deadline = time.monotonic() + timeout_seconds
    while time.monotonic() < deadline:
        if found := look():
            return found
        time.sleep(0.5)
    raise CheckFailed(f"{what} did not come within {timeout_seconds:.0f} s")


class Stack:
    """The composed services, under a project name of their own."""

    def __init__(self) -> None:
        has_plugin = subprocess.run(["docker", "compose", "version"], capture_output=True).returncode == 0
        check(has_plugin or shutil.which("docker-compose") is not None, "there is no `docker compose` here")
        tool = ["docker", "compose"] if has_plugin else ["docker-compose"]
        # An empty .env: what is tested is what a plain `docker compose up` starts.
        self._env_file = tempfile.NamedTemporaryFile()  # noqa: SIM115 - lives as long as the stack
        self._compose = [*tool, "--project-name", PROJECT, "--env-file", self._env_file.name]
        self.port = _free_port()
        os.environ.update(FINETUNED_PORT=str(self.port), FINETUNED_BASE_MODEL="demo")

    def compose(self, *arguments: str, is_quiet: bool = False) -> str:
        return run(*self._compose, *arguments, is_quiet=is_quiet)

    def take_down(self) -> None:
        """Removes the containers, networks and volumes, whatever state they are in."""
        subprocess.run([*self._compose, "down", "--volumes", "--remove-orphans"], cwd=ROOT)

    def print_logs(self) -> None:
        subprocess.run([*self._compose, "logs", "--no-color", "--tail", "60"], cwd=ROOT)

    def containers(self) -> dict[str, Json]:
        """What the engine knows of each running service's container."""
        ids = self.compose("ps", "-q", is_quiet=True).split()
        found = json.loads(run("docker", "inspect", *ids))
        by_service = {one["Config"]["Labels"]["com.docker.compose.service"]: one for one in found}
        return {service: one for service, one in by_service.items() if service != "init"}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
    return port


class Api:
    """The few calls of the HTTP API that the test makes."""

    def __init__(self, port: int) -> None:
        self._http = httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60)

    def get(self, path: str) -> Json:
        answer: Json = self._http.get(path).raise_for_status().json()
        return answer

    def post(self, path: str, body: Json) -> Json:
        answer: Json = self._http.post(path, json=body).raise_for_status().json()
        return answer

    def upload(self, paths: Sequence[Path]) -> Json:
        files = [("files", (path.name, path.read_bytes())) for path in paths]
        answer: Json = self._http.post("/documents", files=files).raise_for_status().json()
        return answer

    def is_ready(self) -> bool:
        try:
            return self._http.get("/health/ready").status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def job(self, job_id: str) -> Json:
        return self.get(f"/fine-tuning/jobs/{job_id}")

    def ask(self) -> Json:
        return self.post("/fine-tuning/query", {"query": QUESTION, "max_new_tokens": 24})


def check_api_image() -> None:
    """The API's image holds no machine learning and no worker."""
    code = "import sys, importlib.util as u; print(*[name for name in sys.argv[1:] if u.find_spec(name)])"
    image = ["docker", "run", "--rm", "--network", "none", "finetuned-api", "python", "-c", code]
    found = run(*image, *MACHINE_LEARNING, "worker")
    check(not found, f"the API's image holds {found}")


def check_containers(stack: Stack) -> None:
    """Every container is hardened, and the API's port is the only one that is published."""
    containers = stack.containers()
    check(set(containers) == SERVICES, f"{sorted(containers)} run, and not {sorted(SERVICES)}")
    for service, container in containers.items():
        _check_hardened(service, container)
    published = {service: _published(one) for service, one in containers.items() if _published(one)}
    check(published == {"api": [f"127.0.0.1:{stack.port}"]}, f"published ports: {published}")


def _check_hardened(service: str, container: Json) -> None:
    host = container["HostConfig"]
    check(host["ReadonlyRootfs"], f"{service}'s root file system can be written")
    check(host["CapDrop"] == ["ALL"], f"{service} has capabilities")
    check(any("no-new-privileges" in option for option in host["SecurityOpt"]), f"{service} may gain privileges")
    users = set(run("docker", "top", container["Id"], "-eo", "uid,pid").split()[2::2])
    check("0" not in users, f"{service} runs as root")


def _published(container: Json) -> list[str]:
    ports = container["NetworkSettings"]["Ports"] or {}
    return [f"{binding['HostIp']}:{binding['HostPort']}" for bindings in ports.values() for binding in bindings or []]


def check_redis(stack: Stack) -> None:
    """Redis asks for its password and keeps an append-only file."""
    redis = stack.containers()["redis"]["Id"]
    stranger = run("docker", "exec", redis, "env", "--unset", "REDISCLI_AUTH", "redis-cli", "ping")
    check("NOAUTH" in stranger, f"Redis answers without its password: {stranger}")
    known = run("docker", "exec", redis, "redis-cli", "config", "get", "appendonly")
    check(known.split()[-1:] == ["yes"], f"Redis keeps no append-only file: {known}")


def check_health(stack: Stack) -> None:
    """Every container's own health check says yes."""

    def are_healthy() -> bool:
        return all(one["State"]["Health"]["Status"] == "healthy" for one in stack.containers().values())

    wait_until("the containers' health", are_healthy, 180)


def learn(api: Api) -> tuple[str, Json]:
    """The main job: documents, dataset, training, and the new version's first answer."""
    uploads = api.upload([DOCUMENTS / name for name in UPLOADED])
    check(all(one["id"] for one in uploads["data"]), f"a document was rejected: {uploads}")
    created = api.post("/fine-tuning/setup", {"num_epochs": 4, "batch_size": 8, "gradient_accumulation_steps": 1})
    for job_id in (created["job_id"], created["training_job_id"]):
        job = _ended(api, job_id)
        check(job["status"] == "succeeded", f"{job_id} ended as {job['status']}: {job['error']}")
    answer = api.ask()
    check(answer["version"] == 1 and not answer["fallback"], f"version 1 did not answer: {answer}")
    return created["job_id"], answer


def _ended(api: Api, job_id: str) -> Json:
    def look() -> Json | None:
        job = api.job(job_id)
        return job if job["status"] in ("succeeded", "failed", "cancelled") else None

    job: Json = wait_until(f"the end of {job_id}", look, 600)
    return job


def start_long_training(api: Api, setup_job_id: str) -> str:
    """A training that is still running when the stack is stopped."""
    job_id: str = api.post("/fine-tuning/train", {"setup_job_id": setup_job_id, "num_epochs": 1000})["job_id"]
    wait_until("the long training's first step", lambda: api.job(job_id)["progress"].get("step"), 120)
    return job_id


def check_stop(stack: Stack) -> float:
    """The whole stack stops in time, with a training under way; returns the seconds it took."""
    started = time.monotonic()
    stack.compose("down")
    seconds = time.monotonic() - started
    check(seconds < GRACE_SECONDS, f"the stack took {seconds:.0f} s to stop")
    return seconds


def check_survival(api: Api, before: Json, first_answer: Json, long_job_id: str) -> None:
    """After the restart all is there, the adapter answers as before, and the stopped training goes on."""
    after = _holdings(api)
    check(after == before, f"not all survived the restart:\n  before {before}\n  after  {after}")
    answer = api.ask()
    same = ("answer", "model", "adapter", "version", "fallback")
    check(all(answer[key] == first_answer[key] for key in same), f"another answer after the restart: {answer}")
    wait_until("the stopped training's return", lambda: api.job(long_job_id)["status"] == "running", 120)
    api.post(f"/fine-tuning/jobs/{long_job_id}/cancel", {})
    check(_ended(api, long_job_id)["status"] == "cancelled", "the long training could not be cancelled")


def _holdings(api: Api) -> Json:
    """What must survive a restart: the documents, the jobs and the adapters."""
    paths = ("/documents", "/fine-tuning/jobs", "/fine-tuning/adapters")
    return {path: sorted(one.get("id") or one["name"] for one in api.get(path)["data"]) for path in paths}


class Steps:
    """Prints what is done, and how long it took."""

    def __init__(self) -> None:
        self._began = self._last = time.monotonic()

    def done(self, what: str) -> None:
        now = time.monotonic()
        print(f"[{now - self._began:6.1f} s] {what} ({now - self._last:.1f} s)", flush=True)
        self._last = now


def test(stack: Stack, steps: Steps) -> None:
    """Everything, in order."""
    stack.compose("build")
    steps.done("both images are built")
    check_api_image()
    steps.done("the API's image holds no torch")
    stack.compose("up", "-d")
    api = Api(stack.port)
    wait_until("readiness", api.is_ready, 300)
    steps.done("up and ready")
    check_containers(stack)
    check_redis(stack)
    steps.done("every container is hardened, one port is published, Redis asks for its password")
    setup_job_id, answer = learn(api)
    steps.done(f"learned and answered: {answer['answer']!r}")
    check_health(stack)
    steps.done("every container is healthy")
    long_job_id = start_long_training(api, setup_job_id)
    before = _holdings(api)
    steps.done(f"before the restart: {', '.join(f'{len(ids)} {path}' for path, ids in before.items())}")
    steps.done(f"stopped while a training ran, in {check_stop(stack):.1f} s")
    stack.compose("up", "-d")
    wait_until("readiness after the restart", api.is_ready, 300)
    check_survival(api, before, answer, long_job_id)
    steps.done("after the restart all is there, and the stopped training went on")


def main() -> int:
    """0 if the stack is as it should be; takes it down with its volumes in any case."""
    steps = Steps()
    stack = Stack()
    try:
        test(stack, steps)
    except (CheckFailed, httpx.HTTPError) as error:
        stack.print_logs()
        print(f"compose-test failed: {error}", file=sys.stderr)
        return 1
    finally:
        stack.take_down()
        steps.done("taken down")
    print("compose-test passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
