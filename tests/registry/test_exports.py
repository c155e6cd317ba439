"""GGUF and the hub, by fakes that stand in for llama.cpp's converter and the hub's client, and what goes wrong."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import HfApi

from shared.errors import HubRefused, HubUnavailable
from shared.settings import Settings
from shared.storage import Storage
from tests.registry.conftest import Installation
from worker.registry.converter import find_converter
from worker.registry.export_job import run_export
from worker.registry.hub import connect, push

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

CONVERTER = """
import argparse, pathlib, sys
parser = argparse.ArgumentParser()
parser.add_argument("model"), parser.add_argument("--outfile"), parser.add_argument("--outtype")
told = parser.parse_args()
assert (pathlib.Path(told.model) / "model.safetensors").is_file()
{ending}
pathlib.Path(told.outfile).write_text("GGUF " + told.outtype)
"""


def with_converter(installation: Installation, ending: str = "") -> Settings:
    script = installation.storage.root / "convert_hf_to_gguf.py"
    script.write_text(CONVERTER.format(ending=ending))
    return installation.settings.model_copy(update={"gguf_converter": script})


@pytest.mark.parametrize(("quantization", "content"), [("q8_0", "GGUF q8_0"), (None, "GGUF f16")])
def test_a_converter_makes_the_merged_model_one_file(
    installation: Installation, quantization: str | None, content: str
) -> None:
    settings = with_converter(installation)
    job = installation.export(format="gguf", quantization=quantization, settings=settings)
    assert job.result is not None
    assert job.result["filename"] == "handbook-v1-gguf.gguf"
    assert installation.storage.export(job.id).read_text() == content
    assert installation.is_tidy()


def test_a_converter_that_fails_fails_the_job_without_its_own_words(installation: Installation) -> None:
    settings = with_converter(installation, ending="sys.exit('no such architecture in /secret')")
    job = installation.export(format="gguf", settings=settings)
    assert (job.status, job.error_code) == ("failed", "export_error")
    assert "secret" not in str(job.error_detail)
    assert not installation.storage.export(job.id).exists()
    assert installation.is_tidy()


def test_without_a_converter_the_job_says_what_to_install(installation: Installation) -> None:
    settings = installation.settings.model_copy(update={"gguf_converter": Path("/nowhere/convert.py")})
    job = installation.export(format="gguf", settings=settings)
    assert (job.status, job.error_code) == ("failed", "converter_not_installed")
    assert "FINETUNED_GGUF_CONVERTER" in str(job.error_detail)


def test_the_converter_on_the_path_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(data_dir=tmp_path, _env_file=None)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_converter(settings) is None
    (tmp_path / "convert_hf_to_gguf.py").touch(0o755)
    assert find_converter(settings) == tmp_path / "convert_hf_to_gguf.py"


class FakeHub:
    """Remembers what was uploaded, or refuses."""

    def __init__(self, error: Exception | None = None) -> None:
        self.calls: list[dict[str, Any]] = []
        self.error = error

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> None:
        self.calls.append({"repo_id": repo_id, "private": private})

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> Any:
        if self.error is not None:
            raise self.error
        self.calls.append({"files": sorted(path.name for path in Path(folder_path).iterdir())})
        return type("Commit", (), {"oid": "abc"})()


def answered(status: int) -> HfHubHTTPError:
    return HfHubHTTPError("said", response=httpx.Response(status, request=httpx.Request("POST", "https://hub")))


def test_an_adapter_is_pushed_to_a_private_repository(installation: Installation) -> None:
    hub = FakeHub()
    job = installation.export(partial(run_export, hub=lambda: hub), format="hub", repository="team/handbook")
    assert job.result == {
        "adapter": "handbook", "version": 1, "format": "hub", "repository": "team/handbook", "commit": "abc",
    }  # fmt: skip
    assert hub.calls[0] == {"repo_id": "team/handbook", "private": True}
    assert {"adapter_config.json", "adapter_model.safetensors", "manifest.json"} <= set(hub.calls[1]["files"])


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (answered(401), HubRefused),
        (answered(403), HubRefused),
        (answered(503), HubUnavailable),
        (httpx.ConnectError("no route"), HubUnavailable),
        (ConnectionError("offline"), HubUnavailable),
    ],
)
def test_what_the_hub_says_becomes_a_sentence(error: Exception, kind: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(kind):
        push(FakeHub(error), "team/handbook", tmp_path)


def test_the_real_client_has_what_is_called() -> None:
    api: Callable[..., Any] = HfApi.upload_folder
    assert {"repo_id", "folder_path", "commit_message"} <= set(api.__wrapped__.__annotations__)  # type: ignore[attr-defined]
    assert {"repo_id", "private", "exist_ok"} <= set(HfApi.create_repo.__wrapped__.__annotations__)


def test_without_a_token_nothing_is_tried(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    monkeypatch.delenv("HUGGING_FACE_HUB_TOKEN", raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(tmp_path / "none"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    with pytest.raises(HubRefused, match="HF_TOKEN"):
        connect()


def test_a_damaged_version_is_not_exported(installation: Installation) -> None:
    weights = installation.folder("handbook") / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    job = installation.export(format="peft")
    assert (job.status, job.error_code) == ("failed", "adapter_broken")


def test_a_cancelled_export_leaves_no_file(installation: Installation) -> None:
    from shared.claimed_job import ClaimedJob
    from shared.repositories.jobs import JobRepository

    def cancel_first(job: ClaimedJob, settings: Settings, storage: Storage, should_stop: Callable[[], bool]) -> None:
        with job.database.write() as session:
            JobRepository(session).cancel("default", job.claim.job_id)
        run_export(job, settings, storage, should_stop)

    assert installation.export(cancel_first, format="peft").status == "cancelled"
    assert list(installation.storage.root.joinpath("exports").iterdir()) == []
