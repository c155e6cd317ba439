"""What goes out comes in again and answers alike; merged weights answer as the adapter does."""

from __future__ import annotations

import json
import shutil
import tarfile
import zipfile
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer

from tests.finetuning.serving import peft_answer
from tests.registry.conftest import PROMPT, Install, Installation, change_config, zipped
from tests.tiny_models import ARCHITECTURES
from worker.adapter_files import check_files
from worker.inference.registry import Registry
from worker.registry.merging import save_merged

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_exported_adapter_is_imported_and_answers_as_before(architecture: str, install: Install) -> None:
    installation = install(architecture)
    exported = installation.export(format="peft")
    assert exported.result is not None
    assert exported.result["filename"] == "handbook-v1-peft.zip"
    archive = installation.storage.export(exported.id).rename(installation.storage.root / "sent.zip")
    imported = installation.import_files(archive)
    assert imported.result == {"adapter": "copy", "version": 1}
    answer = installation.answer(installation.folder("copy"))
    assert answer == installation.answer(installation.folder("handbook")) != installation.answer(None)
    assert (
        check_files(installation.folder("copy")).prompt_format
        == check_files(installation.folder("handbook")).prompt_format
    )
    assert installation.is_tidy()


def test_the_same_version_exported_twice_gives_the_same_bytes(installation: Installation) -> None:
    first, second = (installation.export(format="peft").result for _ in range(2))
    assert first is not None
    assert second is not None
    assert (first["sha256"], first["size_bytes"]) == (second["sha256"], second["size_bytes"])


@pytest.mark.parametrize("architecture", ["gpt2", "t5"])
def test_a_merged_model_answers_as_the_adapter_does(architecture: str, install: Install, tmp_path: Path) -> None:
    installation = install(architecture)
    exported = installation.export(format="merged")
    with zipfile.ZipFile(installation.storage.export(exported.id)) as packed:
        packed.extractall(tmp_path / "merged")  # noqa: S202 - our own archive
    auto = AutoModelForSeq2SeqLM if architecture == "t5" else AutoModelForCausalLM
    merged = auto.from_pretrained(tmp_path / "merged")
    assert peft_answer(merged, PROMPT) == installation.answer(installation.folder("handbook"))
    assert AutoTokenizer.from_pretrained(tmp_path / "merged").eos_token is not None
    assert str(tmp_path) not in (tmp_path / "merged" / "config.json").read_text()


def test_an_imported_version_is_served(installation: Installation, sent: Path) -> None:
    installation.import_files(zipped(sent))
    registry = Registry(installation.database, installation.storage, allows_fallback=False)
    served = registry._adapted("default", "copy", None)
    assert served.version is not None
    assert (served.model, served.version.number) == (str(installation.base), 1)


@pytest.mark.parametrize("kind", ["tgz", "files"])
def test_an_adapter_without_tokenizer_gets_the_base_models(installation: Installation, sent: Path, kind: str) -> None:
    files = [sent / "adapter_config.json", sent / "adapter_model.safetensors"]
    if kind == "tgz":
        with tarfile.open(sent.with_suffix(".tgz"), "w:gz") as packed:
            for file in files:
                packed.add(file, f"./{file.name}")
        files = [sent.with_suffix(".tgz")]
    assert installation.import_files(*files).status == "succeeded"
    folder = installation.folder("copy")
    assert (folder / "tokenizer.json").read_text() == (installation.folder("handbook") / "tokenizer.json").read_text()
    assert installation.answer(folder) == installation.answer(installation.folder("handbook"))


def test_the_version_names_the_files_that_it_was_made_of(installation: Installation, sent: Path) -> None:
    job = installation.import_files(zipped(sent))
    version = installation.version("copy")
    assert version.config["imported"] == {"job_id": job.id, "files": job.parameters["files"]}
    assert (version.config["lora_rank"], version.config["lora_alpha"]) == (3, 16)
    assert check_files(installation.folder("copy")).config == version.config
    (move,) = installation.history("copy")
    assert (move.action, move.actor, move.reason) == ("publish", f"job {job.id}", "imported")


@pytest.mark.parametrize(("is_promoted", "live"), [(False, 1), (True, 2)])
def test_a_second_version_is_live_only_if_that_is_asked_for(
    installation: Installation, sent: Path, is_promoted: bool, live: int
) -> None:
    job = installation.import_files(zipped(sent), adapter="handbook", promote=is_promoted)
    assert job.result == {"adapter": "handbook", "version": 2}
    assert installation.version("handbook").number == live


def test_a_base_model_may_be_named_anew(installation: Installation, sent: Path) -> None:
    change_config(sent, base_model_name_or_path="/home/somebody/model")
    assert installation.import_files(zipped(sent), model=str(installation.base)).status == "succeeded"
    config = json.loads((installation.folder("copy") / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(installation.base)


def test_nothing_of_a_configuration_is_taken_over_that_was_not_understood(
    installation: Installation, sent: Path
) -> None:
    change_config(sent, auto_mapping={"base_model_class": "os.system"}, surprise="yes", revision="evil")
    installation.import_files(zipped(sent))
    config = json.loads((installation.folder("copy") / "adapter_config.json").read_text())
    assert "surprise" not in config
    assert (config["auto_mapping"], config["revision"]) == (None, None)


def test_a_base_model_whose_generation_settings_contradict_themselves_can_be_merged(
    installation: Installation, tmp_path: Path
) -> None:
    base = tmp_path / "base"
    shutil.copytree(installation.base, base)
    settings = json.loads((base / "generation_config.json").read_text()) | {"temperature": 0.9, "top_p": 0.6}
    (base / "generation_config.json").write_text(json.dumps(settings))
    save_merged(str(base), installation.folder("handbook"), tmp_path / "merged", installation.settings)
    merged = json.loads((tmp_path / "merged" / "generation_config.json").read_text())
    assert (merged["temperature"], merged["do_sample"]) == (0.9, True)
