"""Teacher-forced scores of columns: those of transformers and PEFT, and kept over interruptions."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedModel

from shared.evaluation_parameters import Column
from shared.repositories.adapters import AdapterRepository
from shared.repositories.jobs import JobRepository
from shared.training_config import Quantization
from tests.evaluation.conftest import BASE, V1, V2, Bench
from tests.inference.tiny import flip_a_byte, publish, set_rank
from tests.tiny_models import make_tokenizer, save_model
from worker.adapter_files import MANIFEST, Manifest, list_files
from worker.base_models.formats import Example
from worker.base_models.loading import load_model
from worker.data import dataset as datasets_on_disk
from worker.inference.weights import load_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@torch.no_grad()
def reference(model: PreTrainedModel | PeftModel, example: Example) -> tuple[float, float]:
    """Loss and token accuracy by transformers' own loss."""
    out = model.eval()(input_ids=torch.tensor([example.input_ids]), labels=torch.tensor([example.labels]))
    labels = torch.tensor(example.labels)[1:]
    right = (out.logits[0, :-1].argmax(-1) == labels)[labels != -100]
    return float(out.loss), float(right.float().mean())


def test_losses_of_base_and_versions_are_those_of_transformers_and_peft(bench: Bench, gpt2: Path) -> None:
    found = bench.evaluate(BASE, V1, V2, max_questions=0)
    _, held_out = datasets_on_disk.load(bench.storage.dataset("dataset-1"))
    rows = [row for row in found.of("held_out") if row.num_tokens]
    assert len(rows) == len(held_out) == 5
    models = {"base": AutoModelForCausalLM.from_pretrained(gpt2)}
    for number in (1, 2):
        fresh = AutoModelForCausalLM.from_pretrained(gpt2)
        models[f"handbook@{number}"] = PeftModel.from_pretrained(
            fresh, bench.storage.version(f"version-handbook-{number}")
        )
    for label, model in models.items():
        wanted = [reference(model, example) for example in held_out]
        for row, (loss, accuracy) in zip(rows, wanted, strict=True):
            metrics = row.answers[label].metrics
            assert metrics["loss"] == pytest.approx(loss, abs=1e-5)
            assert metrics["token_accuracy"] == pytest.approx(accuracy, abs=1e-6)
            assert set(metrics) == {"loss", "token_accuracy"}
        (figures,) = [one for one in found.report.columns if one.label == label]
        weights = [row.num_tokens or 0 for row in rows]
        mean = sum(loss * weight for (loss, _), weight in zip(wanted, weights, strict=True)) / sum(weights)
        assert figures.figures["loss"].value == pytest.approx(mean, abs=1e-5)
        assert figures.corpus["perplexity"] == pytest.approx(math.exp(mean), rel=1e-4)
    assert found.report.baseline == "base"
    assert not found.report.notes


def test_held_out_conversations_come_as_questions_with_the_turns_before_them(bench: Bench) -> None:
    rows = bench.evaluate(BASE, max_questions=0).of("held_out")
    assert [(row.question, row.wanted) for row in rows if row.wanted] == [
        ("What is beta 0?", "It is 0beta."),
        ("What is beta 1?", "It is 1beta."),
        ("What is beta 2?", "It is 2beta."),
        ("What is beta 3?", "It is 3beta."),
    ]


def test_losses_that_are_on_disk_are_not_computed_again(bench: Bench) -> None:
    job = bench.claim(bench.create(BASE, V1, general=True, max_questions=0))
    folder = bench.storage.checkpoints(job.claim.job_id) / "losses"
    bench.run(job, lambda: any(folder.glob("*.json")))
    (kept,) = folder.glob("*.json")
    assert bench.row(job).status == "running"
    scores = json.loads(kept.read_text())
    number, _, num_tokens, _ = scores[0]
    kept.write_text(json.dumps([[number, 7.0 * num_tokens, num_tokens, 0], *scores[1:]]))
    bench.hand_back(job)
    second = bench.claim(bench.row(job))
    bench.run(second)
    whole = bench.evaluate(BASE, V1, general=True, max_questions=0)
    changed = [one for one, two in zip(bench.found(second).rows, whole.rows, strict=True) if one != two]
    assert [(row.number, row.answers["base"].metrics["loss"]) for row in changed] == [(number, 7.0)]


def test_a_column_that_is_gone_or_broken_is_left_out_and_said(bench: Bench) -> None:
    flip_a_byte(bench.storage.version("version-handbook-2") / "adapter_model.safetensors")
    gone, none = Column(adapter="handbook", version=7), Column(adapter="nobody", version=1)
    found = bench.evaluate(BASE, V2, gone, none, V1, max_questions=0)
    assert {one.label for one in found.report.columns} == {"base", "handbook@1"}
    left_out = [note.partition(" is left out: ")[0] for note in found.report.notes]
    assert left_out == ["handbook@2", "handbook@7", "nobody@1"]
    assert "handbook@2" not in found.rows[0].answers


def test_the_losses_of_a_base_model_with_another_tokenizer_are_left_out_and_said(bench: Bench, tmp_path: Path) -> None:
    other = save_model("gpt2", tmp_path / "other", context=128)
    tokenizer = make_tokenizer(128)
    tokenizer.add_tokens(["office"])
    tokenizer.save_pretrained(other)
    publish(bench.database, bench.storage, other, "elsewhere", 3)
    same = save_model("gpt2", tmp_path / "same", context=128)
    publish(bench.database, bench.storage, same, "beside", 4)
    columns = (BASE, Column(adapter="elsewhere", version=1), Column(adapter="beside", version=1))
    found = bench.evaluate(*columns, max_questions=0)
    assert set(found.rows[0].answers) == {"base", "beside@1"}
    (note,) = found.report.notes
    assert note.startswith("elsewhere@1: the losses are left out, for ")


def test_the_live_version_is_the_one_that_was_live_when_the_job_began(bench: Bench) -> None:
    job = bench.claim(bench.create(BASE, Column(adapter="handbook"), max_questions=0))
    bench.run(job, lambda: True)
    with bench.database.write() as session:
        AdapterRepository(session).promote("default", "handbook", 1, "a test")
    bench.hand_back(job)
    second = bench.claim(bench.row(job))
    bench.run(second)
    assert "handbook@2" in bench.found(second).rows[0].answers


def test_the_version_of_a_training_is_looked_up_when_the_job_runs(bench: Bench) -> None:
    with bench.database.write() as session:
        training = JobRepository(session).create("default", "training", {})
        version = AdapterRepository(session).resolve("default", "handbook", 1)
        version.job_id = training.id
    found = bench.evaluate(BASE, Column(training_job_id=training.id), max_questions=0)
    assert set(found.rows[0].answers) == {"base", "handbook@1"}


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_a_version_that_was_trained_on_quantized_weights_is_measured_on_those_that_answer(
    bench: Bench, gpt2: Path, quantization: Quantization
) -> None:
    with bench.database.write() as session:
        AdapterRepository(session).resolve("default", "handbook", 1).config = {"quantization": quantization}
    found = bench.evaluate(BASE, V1, max_questions=0)
    example = datasets_on_disk.load(bench.storage.dataset("dataset-1"))[1][0]
    folder, served = bench.storage.version("version-handbook-1"), load_weights(str(gpt2), None, "auto")[0]
    assert isinstance(example, Example)
    (row, *_) = [one for one in found.of("held_out") if one.num_tokens]
    losses = {label: answer.metrics["loss"] for label, answer in row.answers.items()}
    assert losses["base"] == pytest.approx(reference(served, example)[0], abs=1e-5)
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(gpt2), folder)
    assert losses["handbook@1"] == pytest.approx(reference(plain, example)[0], abs=1e-5)
    trained_on = PeftModel.from_pretrained(load_model(str(gpt2), quantization=quantization), folder)
    assert abs(losses["handbook@1"] - reference(trained_on, example)[0]) > 1e-3
    (note,) = found.report.notes
    bits = quantization.removesuffix("bit")
    assert note.startswith(f"handbook@1 was trained on its base model in {bits} bits. The losses of both are those on ")


def test_losses_are_those_of_the_weights_that_the_settings_say_answers_come_from(bench: Bench, gpt2: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there bfloat16 is the usual format")
    example = datasets_on_disk.load(bench.storage.dataset("dataset-1"))[1][0]
    assert isinstance(example, Example)
    found = {}
    for weights in ("auto", "int8", "bfloat16"):
        bench.settings = bench.settings.model_copy(update={"inference_weights": weights})
        found[weights] = bench.evaluate(BASE, V1, max_questions=0)
    losses = {weights: [row.answers["base"].metrics for row in one.rows] for weights, one in found.items()}
    assert losses["int8"] == losses["auto"] != losses["bfloat16"]
    half = AutoModelForCausalLM.from_pretrained(gpt2, dtype=torch.bfloat16)
    (row, *_) = [one for one in found["bfloat16"].of("held_out") if one.num_tokens]
    assert row.answers["base"].metrics["loss"] == pytest.approx(reference(half, example)[0], rel=5e-3)
    assert found["int8"].report.notes == (
        "Inference workers answer with weights in int8; losses are those on weights in float32.",
    )


def test_where_there_is_not_enough_memory_it_is_said_with_the_weights_that_were_tried(bench: Bench, gpt2: Path) -> None:
    folder = bench.storage.version("version-handbook-1")
    set_rank(folder, 10**14)  # more than any machine can address
    manifest = Manifest.model_validate_json((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(manifest.model_copy(update={"files": list_files(folder)}).to_json())
    found = bench.evaluate(BASE, V1, V2, max_questions=0)
    needed = f"{gpt2} with weights in float32 needs more memory than the training worker has."
    assert found.report.notes == (f"handbook@1: the losses are left out: {needed}",)
    assert set(found.rows[0].answers) == {"base", "handbook@2"}
