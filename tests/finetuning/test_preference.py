"""Direct preference optimization: equal to TRL's, off the noise, and from OpenAI's lines to a published version."""

from __future__ import annotations

import hashlib
import json
import math
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from torch import nn
from torch.utils.data import Sampler
from transformers import OPTConfig, OPTForCausalLM

from shared.claimed_job import ClaimedJob
from shared.database import Database
from shared.errors import NothingToLearn
from shared.models import DEFAULT_PROJECT, Document
from shared.repositories.adapters import AdapterRepository
from shared.repositories.documents import DocumentRepository
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.storage import Storage
from shared.training_config import FineTuningConfig
from shared.training_method import DpoMethod
from tests.databases import migrate
from tests.tiny_models import ARCHITECTURES, make_model, make_tokenizer
from worker.base_models.formats import MASKED, Example, PreferencePair, PromptFormat, encode_preference, sequences
from worker.data.job import run_setup
from worker.finetuning.batches import Plan, Split, data_order, fit, micro_batches
from worker.finetuning.checkpoints import Checkpoints, trainable
from worker.finetuning.job import run_training
from worker.finetuning.loop import train
from worker.finetuning.lora import add_lora
from worker.finetuning.peft_adapter import PEFTAdapterManager
from worker.finetuning.preference import silence
from worker.finetuning.reports import EvaluationMetrics, StepMetrics, TrainingStarted, numbers_of

BETA = 0.3


@pytest.fixture
def dpo_config(quick_config: FineTuningConfig) -> FineTuningConfig:
    """Ten steps of four pairs. Dropout is configured, and stays off."""
    values = {"method": DpoMethod(beta=BETA), "learning_rate": 1e-2, "warmup_ratio": 0.2, "lora_dropout": 0.1}
    return quick_config.model_copy(update=values)


def make_preferences(architecture: str, number: int = 20, *, seed: int = 0) -> list[PreferencePair]:
    """Random prompts, each with two random answers of different lengths."""
    source = random.Random(seed)

    def tokens(most: int) -> list[int]:
        return [source.randrange(1, 40) for _ in range(source.randrange(2, most))]

    def side(prompt: list[int]) -> Example:
        answer = [*tokens(12), 0]
        if architecture == "t5":
            return Example(prompt, answer)
        return Example(prompt + answer, [MASKED] * len(prompt) + answer)

    prompts = [tokens(9) for _ in range(number)]
    return [PreferencePair(side(prompt), side(prompt)) for prompt in prompts]


def run(
    config: FineTuningConfig, architecture: str = "gpt2", *, number: int = 20, held_out: int = 0, **options: Any
) -> tuple[PeftModel, list[Any]]:
    """A fresh model trained on fresh pairs, and what was reported."""
    model = add_lora(make_model(architecture), config)
    reports: list[Any] = []
    pairs = make_preferences(architecture, number)
    train(model, pairs, make_preferences(architecture, held_out, seed=9), config, report=reports.append, **options)
    return model, reports


def steps_of(reports: list[Any]) -> list[StepMetrics]:
    return [one for one in reports if isinstance(one, StepMetrics)]


def weights(model: PeftModel) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in trainable(model)}


def are_equal(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


# The loss


class _InOurOrder(Sampler[int]):
    """The peer's pairs in the order in which our loop takes them, epoch by epoch."""

    def __init__(self, number: int) -> None:
        self.number, self.epoch = number, 0

    def __len__(self) -> int:
        return self.number

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Any:
        return iter(data_order(self.number, 0, self.epoch))


def trl_history(config: FineTuningConfig, architecture: str, folder: Path) -> list[dict[str, float]]:
    """What TRL logs of its steps on the same model and pairs."""
    from datasets import Dataset
    from trl import DPOConfig, DPOTrainer

    class Peer(DPOTrainer):
        def _prepare_dataset(self, dataset: Any, *others: Any) -> Any:
            return dataset  # it is tokenised already

        def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
            return _InOurOrder(len(self.train_dataset))

    def row(pair: PreferencePair) -> dict[str, list[int]]:
        start = pair.chosen.labels.count(MASKED)
        chosen, rejected = (side.input_ids for side in sequences(pair))
        return {"prompt_ids": chosen[:start], "chosen_ids": chosen[start:], "rejected_ids": rejected[start:]}

    arguments = DPOConfig(
        output_dir=str(folder),
        beta=BETA,
        num_train_epochs=config.num_epochs,
        per_device_train_batch_size=config.batch_size,
        gradient_accumulation_steps=config.gradient_accumulation_steps,
        learning_rate=config.learning_rate,
        warmup_steps=config.warmup_ratio,
        weight_decay=0.0,
        optim="adamw_torch",
        bf16=False,
        gradient_checkpointing=False,
        use_cpu=True,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        remove_unused_columns=False,
    )
    peer = Peer(
        model=add_lora(make_model(architecture), config),
        args=arguments,
        train_dataset=Dataset.from_list([row(pair) for pair in make_preferences(architecture)]),
        processing_class=make_tokenizer(),
    )
    peer.train()
    return [entry for entry in peer.state.log_history if "loss" in entry]


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")  # the peer's own
@pytest.mark.filterwarnings("ignore:.*pin_memory.*")  # the peer's own, without a GPU
@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_each_step_equals_that_of_trl(architecture: str, dpo_config: FineTuningConfig, tmp_path: Path) -> None:
    theirs = trl_history(dpo_config, architecture, tmp_path)
    _, reports = run(dpo_config, architecture)
    ours = steps_of(reports)
    assert len(ours) == len(theirs) == 10
    for step, entry in zip(ours, theirs, strict=True):
        assert step.train_loss == pytest.approx(entry["loss"], abs=1e-4)
        assert step.learning_rate == pytest.approx(entry["learning_rate"])
        assert step.gradient_norm == pytest.approx(entry["grad_norm"], rel=1e-3)
        for name in ("rewards/chosen", "rewards/rejected", "rewards/margins"):
            assert step.details[name] == pytest.approx(entry[name], abs=1e-4), name
    # Before the first change all rewards are 0, so that which is greater is a matter of the last bit.
    histories = ([step.details for step in ours], theirs)
    accuracies = [[one["rewards/accuracies"] for one in history[2:]] for history in histories]
    assert accuracies[0] == pytest.approx(accuracies[1])
    assert sum(step.train_accuracy for step in ours) > 0
    assert ours[-1].train_loss < ours[0].train_loss - 0.05


def paper_losses(config: FineTuningConfig, architecture: str) -> list[tuple[float, float]]:
    """(loss, margin) of each step by equation 7 of the paper, written with plain torch and one model a policy."""
    policy, reference = add_lora(make_model(architecture), config).eval(), make_model(architecture).eval()
    pairs, told = make_preferences(architecture, 10), []
    plan = Plan.of(len(pairs), config)
    parameters = [parameter for parameter in policy.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(parameters, weight_decay=0.0)

    def log_prob(model: nn.Module, example: Example) -> torch.Tensor:
        logits = model(input_ids=torch.tensor([example.input_ids]), labels=torch.tensor([example.labels])).logits[0]
        chosen: torch.Tensor = logits.log_softmax(-1)[torch.arange(len(example.labels)), example.labels]
        return chosen.sum()

    for step in range(plan.total_steps):
        margins = []
        for index in plan.examples_of(step):
            chosen, rejected = sequences(pairs[index])
            with torch.no_grad():
                base = log_prob(reference, chosen) - log_prob(reference, rejected)
            margins.append(BETA * (log_prob(policy, chosen) - log_prob(policy, rejected) - base))
        loss = torch.stack([-torch.log(torch.sigmoid(margin)) for margin in margins]).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.max_grad_norm)
        optimizer.param_groups[0]["lr"] = plan.learning_rate_after(step)
        optimizer.step()
        told.append((loss.item(), torch.stack(margins).mean().item()))
    return told


def test_each_step_of_an_encoder_decoder_equals_the_papers_formula(dpo_config: FineTuningConfig) -> None:
    config = dpo_config.model_copy(update={"gradient_accumulation_steps": 1})
    _, reports = run(config, "t5", number=10)
    ours = [(step.train_loss, step.details["rewards/margins"]) for step in steps_of(reports)]
    assert len(ours) == 10
    for our, their in zip(ours, paper_losses(config, "t5"), strict=True):
        assert our == pytest.approx(their, abs=1e-4)
    assert ours[-1][1] > 0.05


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_mean_over_pairs_does_not_depend_on_how_they_are_split(
    architecture: str, dpo_config: FineTuningConfig
) -> None:
    splits = (None, Split(6, 64, is_joined=False), Split(1, 1))
    histories = [steps_of(run(dpo_config, architecture, number=7, split=split)[1]) for split in splits]
    for ours in zip(*histories, strict=True):
        assert [step.train_loss for step in ours] == pytest.approx([ours[0].train_loss] * 3, abs=1e-5)
        assert len({step.train_accuracy for step in ours}) == 1


def test_a_pair_stays_together_and_counts_as_two_examples() -> None:
    pairs = make_preferences("gpt2")
    tokens = [sum(len(side.input_ids) for side in sequences(pair)) for pair in pairs]
    for split, is_joined in ((Split(4, 1000), False), (Split(4, 64), False), (Split(4, 64), True)):
        parts = list(micro_batches(pairs, split, is_joined=is_joined))
        assert sorted(id(pair) for part in parts for pair in part) == sorted(map(id, pairs))
        for part in parts:
            num_tokens = sum(tokens[pairs.index(pair)] for pair in part)
            assert len(part) == 1 or num_tokens <= split.max_tokens
            assert is_joined or len(part) <= 2


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_reference_is_the_base_model_and_asked_once_for_each_pair(
    architecture: str, dpo_config: FineTuningConfig
) -> None:
    model = add_lora(make_model(architecture), dpo_config)
    num_asked = 0

    def look(module: nn.Module, args: object, kwargs: object) -> None:
        nonlocal num_asked
        adapted = next(one for one in model.modules() if hasattr(one, "lora_A"))
        num_asked += adapted.disable_adapters

    model.get_base_model().register_forward_pre_hook(look, with_kwargs=True)
    reports: list[Any] = []
    pairs, held_out = make_preferences(architecture, 5), make_preferences(architecture, 2, seed=9)
    train(model, pairs, held_out, dpo_config, report=reports.append)
    assert dpo_config.num_epochs == 2
    assert num_asked == 7
    base = next(one for one in reports if isinstance(one, EvaluationMetrics))
    assert base.loss == pytest.approx(math.log(2), abs=1e-5)  # the base model differs in nothing from itself
    assert base.details["rewards/margins"] == pytest.approx(0.0, abs=1e-5)


# Noise


def tiny_opt() -> OPTForCausalLM:
    """Its layers drop out by themselves, and not through modules."""
    torch.manual_seed(7)
    return OPTForCausalLM(
        OPTConfig(
            vocab_size=257, hidden_size=32, ffn_dim=64, num_hidden_layers=2, num_attention_heads=2, dropout=0.5,
            attention_dropout=0.5, max_position_embeddings=64, word_embed_proj_dim=32,
        )
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore::FutureWarning")  # transformers renames a property
@pytest.mark.parametrize("is_checkpointed", [False, True])
@pytest.mark.parametrize("architecture", [*ARCHITECTURES, "opt"])
def test_a_silenced_model_computes_the_same_twice_and_still_checkpoints(
    architecture: str, is_checkpointed: bool
) -> None:
    model = tiny_opt() if architecture == "opt" else make_model(architecture, dropout=0.5)
    num_recomputed = 0

    def count(function: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal num_recomputed
        num_recomputed += 1
        return torch.utils.checkpoint.checkpoint(function, *args, use_reentrant=False, **kwargs)

    if is_checkpointed:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        for module in model.modules():
            if hasattr(module, "_gradient_checkpointing_func"):
                module._gradient_checkpointing_func = count
    tokens = torch.arange(1, 20)[None]
    model.train()
    losses = [model(input_ids=tokens, labels=tokens).loss.item() for _ in range(2)]
    assert architecture == "llama" or losses[0] != losses[1]
    silence(model)
    num_recomputed = 0
    losses = [model(input_ids=tokens, labels=tokens).loss.item() for _ in range(2)]
    assert losses[0] == losses[1]
    assert (num_recomputed > 0) == is_checkpointed


# Interruption


class _Counter:
    """`should_stop` that turns true at the n-th question (never, for None)."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at, self.number = stop_at, 0

    def __call__(self) -> bool:
        self.number += 1
        return self.stop_at is not None and self.number > self.stop_at


def test_an_interrupted_run_ends_with_the_same_bits(dpo_config: FineTuningConfig, tmp_path: Path) -> None:
    checks = _Counter()
    undisturbed, reports = run(dpo_config, number=9, held_out=3, should_stop=checks)
    stops = [checks.number * fifths // 5 for fifths in (1, 3, 4)]
    told: list[Any] = []
    for index, stop_at in enumerate([*stops, None]):
        done = stops[index - 1] if index else 0
        checkpoints = Checkpoints(tmp_path, keep=2, identity="run")
        stop = _Counter(None if stop_at is None else stop_at - done)
        model, new = run(dpo_config, number=9, held_out=3, checkpoints=checkpoints, should_stop=stop)
        told += new
    assert are_equal(weights(model), weights(undisturbed))
    for kind in (StepMetrics, EvaluationMetrics):
        expected, seen = ([one for one in each if isinstance(one, kind)] for each in (reports, told))
        losses = [[getattr(one, "loss", None) or one.train_loss for one in each] for each in (expected, seen)]
        assert losses[0] == losses[1]
        assert [one.details for one in expected] == [one.details for one in seen]


def test_a_killed_run_goes_on_to_the_same_bits(dpo_config: FineTuningConfig, tmp_path: Path) -> None:
    undisturbed, _ = run(dpo_config, number=9)
    often = dpo_config.model_copy(update={"checkpoint_interval_steps": 1})

    def die(metrics: Any) -> None:
        if isinstance(metrics, StepMetrics) and metrics.step == 5:
            raise KeyboardInterrupt  # nothing of ours may run after it, as after a kill

    model, pairs = add_lora(make_model("gpt2"), often), make_preferences("gpt2", 9)
    checkpoints = Checkpoints(tmp_path, keep=2, identity="run")
    with pytest.raises(KeyboardInterrupt):
        train(model, pairs, [], often, checkpoints=checkpoints, report=die)
    model, reports = run(often, number=9, checkpoints=checkpoints)
    assert [step.step for step in steps_of(reports)] == [5, 6]
    assert are_equal(weights(model), weights(undisturbed))


# What is told


def test_the_rewards_are_told_by_trls_names_and_the_loss_is_that_of_the_epochs_pairs(
    dpo_config: FineTuningConfig,
) -> None:
    model = add_lora(make_model("gpt2"), dpo_config)
    reports: list[Any] = []
    outcome = train(model, make_preferences("gpt2"), make_preferences("gpt2", 5), dpo_config, report=reports.append)
    started = next(one for one in reports if isinstance(one, TrainingStarted))
    assert (started.num_examples, started.unit) == (20, "preference pairs")
    names = {"rewards/chosen", "rewards/rejected", "rewards/margins", "rewards/accuracies"}
    steps, scores = steps_of(reports), [one for one in reports if isinstance(one, EvaluationMetrics)]
    assert names <= numbers_of(steps[-1]).keys()
    assert {f"valid_{name}" for name in names} <= numbers_of(scores[-1]).keys()
    assert outcome.train_loss == pytest.approx(sum(step.train_loss for step in steps[5:]) / 5)
    supervised = sum(side.num_supervised for pair in make_preferences("gpt2") for side in sequences(pair))
    assert outcome.num_supervised_tokens == 2 * supervised
    last = scores[-1].details
    assert last["rewards/margins"] == pytest.approx(last["rewards/chosen"] - last["rewards/rejected"], abs=1e-6)
    assert 0.0 <= last["rewards/accuracies"] <= 1.0


def test_pairs_that_are_equal_once_they_are_cut_are_not_learned(dpo_config: FineTuningConfig) -> None:
    model = add_lora(make_model("gpt2"), dpo_config)
    long = PreferencePair(*(Example([1, 2, 3, last], [MASKED, 2, 3, last]) for last in (4, 5)))
    pairs = fit([long], 3, model.config)
    assert pairs == [PreferencePair(*[Example([1, 2, 3], [MASKED, 2, 3], is_truncated=True)] * 2)]
    with pytest.raises(NothingToLearn):
        train(model, pairs, [], dpo_config)
    unanswered = PreferencePair(Example([1, 2], [MASKED, 2]), Example([1, 2], [MASKED, MASKED]))
    with pytest.raises(NothingToLearn):
        train(model, [unanswered], [], dpo_config)


# From lines to answers

COLOURS = ["red", "blue", "green", "grey", "pink", "gold", "black", "white", "brown", "beige"]


def openai_lines() -> str:
    lines = [
        {
            "input": {"messages": [{"role": "user", "content": f"Is the door {colour}?"}]},
            "preferred_output": [{"role": "assistant", "content": "Yes, indeed."}],
            "non_preferred_output": [{"role": "assistant", "content": "No way."}],
        }
        for colour in COLOURS
    ]
    return "\n".join(json.dumps(line) for line in lines)


def log_ratio(model: nn.Module, pair: PreferencePair) -> float:
    """How much likelier the preferred answer is than the other (in nats)."""
    with torch.no_grad():
        chosen, rejected = (
            -float(model(input_ids=torch.tensor([side.input_ids]), labels=torch.tensor([side.labels])).loss)
            * side.num_supervised
            for side in sequences(pair)
        )
    return chosen - rejected


def unseen_pair() -> PreferencePair:
    question = [{"role": "user", "content": "Is the door purple?"}]
    preference = {"prompt": question, "chosen": "Yes, indeed.", "rejected": "No way."}
    return encode_preference(PromptFormat.TEXT, make_tokenizer(), preference, 128)  # type: ignore[arg-type]


def test_openais_lines_become_a_version_that_prefers_the_preferred_answers(
    tiny_folder: Path, dpo_config: FineTuningConfig, tmp_path: Path
) -> None:
    settings = Settings(data_dir=tmp_path / "data", _env_file=None)
    migrate(settings.resolved_database_url)
    database, storage = Database(settings.resolved_database_url), Storage(settings.data_dir)
    config = dpo_config.model_copy(update={"model_name": str(tiny_folder), "max_length": 128, "num_epochs": 4})

    def claim(kind: str, parameters: dict[str, Any]) -> ClaimedJob:
        with database.write() as session:
            JobRepository(session).create(DEFAULT_PROJECT, kind, parameters)
            claimed = JobRepository(session).claim_next(kind, "tests", 60.0)
        assert claimed is not None
        return ClaimedJob(database, claimed)

    content = openai_lines().encode()
    sha256 = hashlib.sha256(content).hexdigest()
    with database.write() as session:
        row = Document(id="file-1", project_id=DEFAULT_PROJECT, filename="doors.jsonl", kind="jsonl",
                       size_bytes=len(content), sha256=sha256)  # fmt: skip
        DocumentRepository(session).add(row)
    storage.document("file-1").write_bytes(content)
    described = config.model_dump(mode="json")
    setup = claim("setup", {"config": described})
    run_setup(setup, settings, storage)
    parameters = {"setup_job_id": setup.claim.job_id, "adapter": "doors", "config": described}
    job = claim("training", parameters)
    run_training(job, settings, storage, lambda: False)

    with database.read() as session:
        row = JobRepository(session).get(DEFAULT_PROJECT, job.claim.job_id)
        events = list(JobRepository(session).events(job.claim.job_id, type="metrics", limit=99))
        messages = [one.message for one in JobRepository(session).events(job.claim.job_id, type="message", limit=99)]
        version = AdapterRepository(session).resolve(DEFAULT_PROJECT, "doors", None)
    database.close()
    assert row.status == "succeeded"
    assert any("on 9 preference pairs (1 held out)" in one for one in messages)
    assert events[-1].data["rewards/accuracies"] == events[-1].data["valid_rewards/accuracies"] == 1.0
    assert row.progress["validation_rewards/margins"] == version.metrics["validation_rewards/margins"] > 0.1
    assert version.config["method"] == {"type": "dpo", "beta": BETA}
    base, pair = make_model("gpt2", context=128).eval(), unseen_pair()
    before = log_ratio(base, pair)
    trained = PeftModel.from_pretrained(base, str(storage.version(version.id))).eval()
    assert log_ratio(trained, pair) > before + 1.0


def test_the_library_learns_preferences_too(tiny_folder: Path, dpo_config: FineTuningConfig, tmp_path: Path) -> None:
    path = tmp_path / "doors.jsonl"
    path.write_text(openai_lines())
    values = {"model_name": str(tiny_folder), "max_length": 128, "num_epochs": 1}
    manager = PEFTAdapterManager(dpo_config.model_copy(update=values))
    assert manager.setup_fine_tuning_pipeline([path])
    outcome = manager.train_model()
    assert outcome.final is not None
    assert outcome.final.details["rewards/margins"] > 0
    manager.save_model(tmp_path / "adapter")
    assert not manager.setup_fine_tuning_pipeline(["A text without any preference. " * 9])
