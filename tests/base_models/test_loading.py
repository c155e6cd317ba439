"""Models come from the disk if they are there, else from the hub, and what fails says what to do."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import safetensors.torch
import torch

from shared.base_models import check_allowed, is_on_disk
from shared.errors import BaseModelNotFound, BaseModelOffline, BaseModelUnsupported, ModelNotAllowed
from tests.tiny_models import save_model
from worker.base_models.loading import load_model, load_tokenizer

LOAD_TWICE = """
import os, sys
from pathlib import Path
from urllib.request import urlopen
from worker.base_models.loading import load_model, load_tokenizer

cache = Path(sys.argv[1])
for _ in range(2):
    load_tokenizer("acme/tiny", cache)
    print(type(load_model("acme/tiny", cache_dir=cache)).__name__)
    urlopen(os.environ["HF_ENDPOINT"] + "/loaded")
"""

LOAD_INTO_LITTLE_ROOM = """
import resource, sys
from pathlib import Path
from shared.errors import FinetunedError
from worker.base_models.loading import load_model

resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))  # stands for the disk's end
try:
    load_model("acme/tiny", cache_dir=Path(sys.argv[1]))
except FinetunedError as error:
    print(error.code)
"""

LOAD_AT_ONCE = """
import threading
from worker.base_models.loading import load_model

def load():
    start.wait()
    for _ in range(6):
        models.append(load_model({folder!r}))

models, start = [], threading.Barrier(4)
threads = [threading.Thread(target=load) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
for model in [*models, load_model({folder!r})]:
    tied = model.get_input_embeddings().weight is model.get_output_embeddings().weight
    print(tied and model.device.type == "cpu")
"""


class Hub(ThreadingHTTPServer):
    """A model hub on loopback that has one model, `acme/tiny`, and remembers what it was asked for."""

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Request)
        self.folder = folder
        self.asked: list[str] = []


class _Request(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        return

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        path = self.path.split("?")[0]
        self.server.asked.append(path)
        body = self._body(path)
        self.send_response(404 if body is None else 200)
        self.send_header("X-Repo-Commit", "a" * 40)
        if body is None:
            self.send_header("X-Error-Code", "EntryNotFound" if "acme/tiny" in path else "RepoNotFound")
        body = body or b""
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def _body(self, path: str) -> bytes | None:
        if "/acme/tiny/resolve/" in path:
            file = self.server.folder / path.rsplit("/", 1)[1]
            return file.read_bytes() if file.is_file() else None
        if path == "/loaded":
            return b""
        if path == "/api/models/acme/tiny":
            files = [{"rfilename": one.name} for one in self.server.folder.iterdir()]
            return json.dumps({"id": "acme/tiny", "sha": "a" * 40, "tags": [], "siblings": files}).encode()
        return None


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    hub = Hub(save_model("gpt2", tmp_path / "hub"))
    thread = threading.Thread(target=hub.serve_forever)
    thread.start()
    yield hub
    hub.shutdown()
    thread.join()
    hub.server_close()


def run_beside(hub: Hub, program: str, cache: Path) -> subprocess.CompletedProcess[str]:
    """Runs it in a process of its own: the hub's client reads its address when it is imported."""
    environment = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    environment.pop("HF_HUB_OFFLINE", None)
    address = {"HF_ENDPOINT": f"http://127.0.0.1:{hub.server_port}", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", program, str(cache)]
    return subprocess.run(command, env={**environment, **address}, capture_output=True, text=True)


@pytest.mark.parametrize("is_old", [False, True], ids=["safetensors", "pytorch_model.bin"])
def test_a_model_of_the_hub_is_fetched_once_and_then_loads_with_no_network(
    hub: Hub, tmp_path: Path, is_old: bool
) -> None:
    if is_old:  # as DialoGPT's repository, which has no safetensors
        tensors = safetensors.torch.load_file(hub.folder / "model.safetensors")
        torch.save(tensors, hub.folder / "pytorch_model.bin")
        (hub.folder / "model.safetensors").unlink()
    cache = tmp_path / "cache"
    done = run_beside(hub, LOAD_TWICE, cache)
    assert done.stdout.split() == ["GPT2LMHeadModel"] * 2, done.stderr
    assert is_on_disk("acme/tiny", cache)
    assert len(hub.asked) > 2
    assert hub.asked[-2:] == ["/loaded"] * 2  # nothing was asked for between the two


def test_a_disk_that_is_full_when_a_model_is_fetched_is_said_as_such(hub: Hub, tmp_path: Path) -> None:
    done = run_beside(hub, LOAD_INTO_LITTLE_ROOM, tmp_path / "cache")
    assert done.stdout.split() == ["disk_full"], done.stderr


def test_a_configuration_alone_is_not_a_model_on_disk(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--acme--tiny" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").write_text("{}")
    assert not is_on_disk("acme/tiny", tmp_path)


def test_a_hub_that_cannot_be_reached_is_said_within_seconds_and_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BaseModelOffline, match="demo"):
        load_tokenizer("nobody/knows-it", tmp_path)


def test_a_folder_that_is_not_there_and_one_that_is_no_model_are_told_apart(tmp_path: Path) -> None:
    with pytest.raises(BaseModelNotFound, match="no model folder"):
        load_model(str(tmp_path / "nothing"))
    (tmp_path / "config.json").write_text('{"model_type": "no such type"}')
    with pytest.raises(BaseModelUnsupported):
        load_model(str(tmp_path))


def test_a_folder_of_pickled_weights_is_refused_and_told_what_to_do(tmp_path: Path) -> None:
    folder = save_model("gpt2", tmp_path / "model")
    torch.save(safetensors.torch.load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(BaseModelUnsupported, match="save them as safetensors"):
        load_model(str(folder))


@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_a_configuration_that_asks_for_code_is_refused(tmp_path: Path, file: str) -> None:
    folder = save_model("gpt2", tmp_path / "model")
    content = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps(content | {"nested": [{"auto_map": {"AutoConfig": "evil.Config"}}]}))
    with pytest.raises(BaseModelUnsupported, match="auto_map"):
        (load_model if file == "config.json" else load_tokenizer)(str(folder))


@pytest.mark.parametrize(
    "name",
    ["other/model", "microsoft/DialoGPT-x/../../etc", "microsoft/DialoGPT-\0", "/models/../etc", "demo/../x", ""],
)
def test_a_name_outside_the_allow_list_is_refused(name: str) -> None:
    with pytest.raises(ModelNotAllowed):
        check_allowed(name, ("demo", "microsoft/DialoGPT-*", "/models/*"))


@pytest.mark.parametrize("name", ["demo", "microsoft/DialoGPT-medium", "/models/mine", "/models/deep/mine"])
def test_a_name_that_a_pattern_covers_is_allowed(name: str) -> None:
    assert check_allowed(name, ("demo", "microsoft/DialoGPT-*", "/models/*")) == name


def test_models_that_are_loaded_at_once_are_whole_and_leave_the_process_as_it_was(tmp_path: Path) -> None:
    folder = save_model("gpt2", tmp_path / "tiny")
    program = LOAD_AT_ONCE.format(folder=str(folder))
    printed = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120, check=True)
    assert printed.stdout.split() == ["True"] * 25, printed.stderr
