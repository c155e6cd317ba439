"""An adapter is published only if its files are whole and change what the model says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file

from shared.errors import AdapterBroken, PublicationRefused
from shared.training_config import FineTuningConfig
from tests.finetuning.conftest import examples_for
from tests.tiny_models import ARCHITECTURES, make_model, make_tokenizer
from worker.adapter_files import MANIFEST, WEIGHTS, Manifest, check_files, list_files
from worker.finetuning.loop import train
from worker.finetuning.lora import add_lora
from worker.finetuning.publication import Lineage, stage, verify

LINEAGE = Lineage("demo", "text", "f" * 64, {"lora_rank": 4}, {"train_loss": 1.0}, "ftjob-1", 1.0)


def trained(architecture: str, config: FineTuningConfig) -> PeftModel:
    config = config.model_copy(update={"model_name": "demo"})
    model = add_lora(make_model(architecture), config)
    train(model, examples_for(architecture, 8), [], config)
    return model


@pytest.fixture
def staged(quick_config: FineTuningConfig, tmp_path: Path) -> tuple[PeftModel, Path]:
    model = trained("gpt2", quick_config)
    stage(model, make_tokenizer(), tmp_path / "staged", LINEAGE)
    return model, tmp_path / "staged"


def restage(folder: Path) -> None:
    """Makes the manifest agree with what the folder now holds."""
    manifest = Manifest.model_validate_json(folder.joinpath(MANIFEST).read_text())
    folder.joinpath(MANIFEST).write_text(manifest.model_copy(update={"files": list_files(folder)}).to_json())


@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")  # PEFT 0.21's own
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_plain_peft_loads_the_folder_and_gives_the_same_greedy_tokens(
    architecture: str, quick_config: FineTuningConfig, tmp_path: Path
) -> None:
    model = trained(architecture, quick_config)
    probe = examples_for(architecture, 1)[0]
    stage(model, make_tokenizer(), tmp_path / "staged", LINEAGE)
    verify(model, tmp_path / "staged", probe)
    model.eval()
    tokens = torch.tensor([probe.input_ids])
    options = {"attention_mask": torch.ones_like(tokens), "max_new_tokens": 12, "do_sample": False, "pad_token_id": 0}
    loaded = PeftModel.from_pretrained(make_model(architecture), str(tmp_path / "staged")).eval()
    ours = model.generate(input_ids=tokens, **options)
    assert torch.equal(ours, loaded.generate(input_ids=tokens, **options))
    base = make_model(architecture).eval()
    assert not torch.equal(model(input_ids=tokens, **_decoder(architecture)).logits,
                           base(input_ids=tokens, **_decoder(architecture)).logits)  # fmt: skip


def _decoder(architecture: str) -> dict[str, torch.Tensor]:
    return {"decoder_input_ids": torch.tensor([[0]])} if architecture == "t5" else {}


def test_the_folder_names_the_base_as_the_user_did_and_every_file(staged: tuple[PeftModel, Path]) -> None:
    _, folder = staged
    manifest = check_files(folder)
    assert '"base_model_name_or_path": "demo"' in (folder / "adapter_config.json").read_text()
    assert manifest.base_model == "demo"
    assert '"schema": 1' in (folder / MANIFEST).read_text()
    assert {"adapter_config.json", "tokenizer.json", WEIGHTS} <= manifest.files.keys()
    assert {path.name for path in folder.iterdir()} == {*manifest.files, MANIFEST}
    assert all(path.stat().st_mode & 0o444 == 0o444 for path in folder.iterdir())


def test_training_is_unchanged_by_its_verification(staged: tuple[PeftModel, Path]) -> None:
    model, folder = staged
    verify(model, folder, examples_for("gpt2", 1)[0])
    assert set(model.peft_config) == {"default"}
    assert model.active_adapters == ["default"]
    assert all(parameter.requires_grad for name, parameter in model.named_parameters() if "lora_" in name)


def _zero(tensors: dict[str, torch.Tensor]) -> None:
    for name in tensors:
        if ".lora_B." in name:
            tensors[name] = torch.zeros_like(tensors[name])


def _nan(tensors: dict[str, torch.Tensor]) -> None:
    next(iter(tensors.values()))[0, 0] = float("nan")


def _drop(tensors: dict[str, torch.Tensor]) -> None:
    del tensors[sorted(tensors)[0]]


def _alter(tensors: dict[str, torch.Tensor]) -> None:
    for name in tensors:
        tensors[name] = tensors[name] * 2


@pytest.mark.parametrize(
    ("change", "reason"),
    [(_zero, "changed nothing"), (_nan, "not finite"), (_drop, "lacks"), (_alter, "do not answer")],
)
def test_wrong_weights_are_refused_with_the_reason(
    staged: tuple[PeftModel, Path], change: Callable[[dict[str, torch.Tensor]], None], reason: str
) -> None:
    model, folder = staged
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    restage(folder)
    with pytest.raises(PublicationRefused, match=reason):
        verify(model, folder, examples_for("gpt2", 1)[0])


def test_files_that_changed_after_staging_are_refused(staged: tuple[PeftModel, Path]) -> None:
    model, folder = staged
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(PublicationRefused, match=r"adapter_config\.json is damaged"):
        verify(model, folder, examples_for("gpt2", 1)[0])


def test_a_rate_too_small_to_change_the_answers_is_refused_and_said(
    quick_config: FineTuningConfig, tmp_path: Path
) -> None:
    model = trained("gpt2", quick_config.model_copy(update={"learning_rate": 1e-30}))
    stage(model, make_tokenizer(), tmp_path / "staged", LINEAGE)
    with pytest.raises(PublicationRefused, match="raise learning_rate or num_epochs"):
        verify(model, tmp_path / "staged", examples_for("gpt2", 1)[0])


def _append(folder: Path) -> None:
    with (folder / WEIGHTS).open("ab") as file:
        file.write(b"\0")


def _add_pickle(folder: Path) -> None:
    (folder / "adapter_model.bin").write_bytes(b"\x80\x04.")


def _add_listed_pickle(folder: Path) -> None:
    _add_pickle(folder)
    restage(folder)


def _link(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder.parent / WEIGHTS)
    (folder / WEIGHTS).symlink_to(folder.parent / WEIGHTS)


def _rewrite(folder: Path, old: str, new: str) -> None:
    text = (folder / MANIFEST).read_text()
    assert old in text
    (folder / MANIFEST).write_text(text.replace(old, new, 1))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (_append, "damaged"),
        (_add_pickle, "not part of what was published"),
        (_add_listed_pickle, "never loaded"),
        (_link, "damaged"),
        (lambda folder: (folder / WEIGHTS).unlink(), "missing"),
        (lambda folder: (folder / MANIFEST).unlink(), "manifest"),
        (lambda folder: (folder / MANIFEST).write_text("{"), "manifest"),
        (lambda folder: _rewrite(folder, '"base_model": "demo"', '"base_model": "dEmo"'), "manifest is damaged"),
        (lambda folder: _rewrite(folder, "{\n", "{ \n"), "manifest is damaged"),
        (lambda folder: _rewrite(folder, '"manifest_sha256": "', '"manifest_sha256":  "'), "manifest is damaged"),
    ],
)
def test_a_damaged_folder_is_broken_and_says_why(
    staged: tuple[PeftModel, Path], damage: Callable[[Path], None], reason: str
) -> None:
    _, folder = staged
    damage(folder)
    with pytest.raises(AdapterBroken, match=reason):
        check_files(folder)


def test_a_folder_in_the_place_of_another_version_is_broken(quick_config: FineTuningConfig, tmp_path: Path) -> None:
    lineage = replace(LINEAGE, version_id="version-1")
    stage(trained("gpt2", quick_config), make_tokenizer(), tmp_path / "version-1", lineage)
    assert check_files(tmp_path / "version-1", "version-1").version_id == "version-1"
    with pytest.raises(AdapterBroken, match="another version"):
        check_files(tmp_path / "version-1", "version-2")
