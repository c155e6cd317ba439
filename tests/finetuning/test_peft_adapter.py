"""The library, word for word as its users write it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel

from shared.errors import InvalidRequest
from shared.training_config import Quantization
from tests.tiny_models import make_model
from worker.adapter_files import check_files
from worker.base_models.formats import Message, PromptFormat, encode_prompt
from worker.finetuning.peft_adapter import FineTuningConfig, PEFTAdapterManager

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

DOCUMENTS = [f"Artificial intelligence number {n} is the study of {word}." for n, word in enumerate(
    ["agents", "search", "plans", "words", "maps", "games", "proofs", "dreams", "graphs", "minds"]
)]  # fmt: skip


def test_the_example_of_the_documentation_works(tiny_folder: Path) -> None:
    documents = DOCUMENTS
    tiny = str(tiny_folder)

    config = FineTuningConfig(model_name=tiny, num_epochs=3, learning_rate=2e-4, max_length=96)
    manager = PEFTAdapterManager(config)
    if manager.setup_fine_tuning_pipeline(documents):
        manager.train_model()
    answer = manager.generate_response("What is artificial intelligence?")

    assert isinstance(answer, str)
    assert manager.outcome is not None
    assert manager.outcome.num_steps == 3


def test_texts_and_paths_are_learned_and_the_saved_folder_answers_alike(tiny_folder: Path, tmp_path: Path) -> None:
    paths = []
    for number, text in enumerate(DOCUMENTS[5:]):
        paths.append(tmp_path / f"note-{number}.txt")
        paths[-1].write_text(text)
    config = FineTuningConfig(
        model_name=str(tiny_folder), num_epochs=6, learning_rate=1e-2, max_length=96, batch_size=2,
        gradient_accumulation_steps=1,
    )  # fmt: skip
    manager = PEFTAdapterManager(config)
    untrained = manager.generate_response("What is it?", max_new_tokens=8)
    assert manager.setup_fine_tuning_pipeline([*DOCUMENTS[:5], *paths[:3], *map(str, paths[3:])])
    outcome = manager.train_model()
    assert outcome.base is not None
    assert outcome.final is not None
    assert outcome.final.loss < outcome.base.loss
    answer = manager.generate_response("What is it?", max_new_tokens=8)
    assert answer != untrained
    manager.save_model(tmp_path / "adapter")
    manager.save_model(tmp_path / "adapter")
    assert {path.name for path in tmp_path.iterdir()} == {"adapter", "tiny-gpt2", *(path.name for path in paths)}
    assert check_files(tmp_path / "adapter").prompt_format == "text"

    other = PEFTAdapterManager(config)
    other.load_model(tmp_path / "adapter")
    assert other.generate_response("What is it?", max_new_tokens=8) == answer

    plain = PeftModel.from_pretrained(make_model("gpt2"), str(tmp_path / "adapter")).eval()
    assert other.tokenizer is not None
    prompt = encode_prompt(PromptFormat.TEXT, other.tokenizer, [Message(role="user", content="What is it?")])
    tokens = torch.tensor([prompt])
    output = plain.generate(
        input_ids=tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=8, do_sample=False, pad_token_id=0
    )
    assert str(other.tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True)).strip() == answer


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_an_adapter_of_a_quantized_base_answers_and_learns_on_after_loading(
    quantization: Quantization, tiny_folder: Path, tmp_path: Path
) -> None:
    config = FineTuningConfig(
        model_name=str(tiny_folder), num_epochs=4, learning_rate=1e-2, max_length=96, batch_size=4,
        gradient_accumulation_steps=1, quantization=quantization,
    )  # fmt: skip
    manager = PEFTAdapterManager(config)
    assert manager.setup_fine_tuning_pipeline(DOCUMENTS[:4])
    first = manager.train_model()
    manager.save_model(tmp_path / "adapter")
    answer = manager.generate_response("What is it?", max_new_tokens=8)

    other = PEFTAdapterManager(config)
    other.load_model(tmp_path / "adapter")
    assert other.generate_response("What is it?", max_new_tokens=8) == answer
    assert other.setup_fine_tuning_pipeline(DOCUMENTS[:4])
    second = other.train_model()
    assert first.train_loss is not None
    assert second.train_loss is not None
    assert second.train_loss < first.train_loss
    other.save_model(tmp_path / "adapter")


def test_nothing_to_learn_is_false_and_not_an_exception(tiny_folder: Path) -> None:
    manager = PEFTAdapterManager(FineTuningConfig(model_name=str(tiny_folder)))
    assert not manager.setup_fine_tuning_pipeline([])
    assert not manager.setup_fine_tuning_pipeline(["   "])
    with pytest.raises(InvalidRequest, match="setup_fine_tuning_pipeline"):
        manager.train_model()
    with pytest.raises(InvalidRequest, match="train_model"):
        manager.save_model("anywhere")


def test_a_folder_that_holds_something_else_is_not_overwritten(tiny_folder: Path, tmp_path: Path) -> None:
    config = FineTuningConfig(model_name=str(tiny_folder), num_epochs=1, learning_rate=1e-2, max_length=96)
    manager = PEFTAdapterManager(config)
    assert manager.setup_fine_tuning_pipeline(DOCUMENTS)
    manager.train_model()
    with pytest.raises(InvalidRequest, match="something other"):
        manager.save_model(tiny_folder)
    assert (tiny_folder / "config.json").is_file()


def test_an_adapter_of_another_base_model_is_refused(tiny_folder: Path, tmp_path: Path) -> None:
    config = FineTuningConfig(model_name=str(tiny_folder), num_epochs=1, learning_rate=1e-2, max_length=96)
    manager = PEFTAdapterManager(config)
    assert manager.setup_fine_tuning_pipeline(DOCUMENTS)
    manager.train_model()
    manager.save_model(tmp_path / "adapter")
    with pytest.raises(InvalidRequest, match="belongs to"):
        PEFTAdapterManager(FineTuningConfig(model_name="demo")).load_model(tmp_path / "adapter")


def test_the_defaults_are_those_that_users_were_promised() -> None:
    promised = {
        "model_name": "microsoft/DialoGPT-medium", "max_length": 512, "learning_rate": 2e-4, "num_epochs": 3,
        "batch_size": 4, "gradient_accumulation_steps": 4, "lora_rank": 16, "lora_alpha": 32, "lora_dropout": 0.1,
        "target_modules": None,
    }  # fmt: skip
    assert promised.items() <= PEFTAdapterManager().config.model_dump().items()
