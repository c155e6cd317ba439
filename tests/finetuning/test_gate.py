"""The gate, through real training jobs: what learned goes live, what did not is published and held."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from shared.models import Dataset, ModelCheckpoint, Promotion
from shared.promotion_policy import GateEvidence, PromotionPolicy, decide
from shared.repositories.adapters import AdapterRepository
from shared.repositories.datasets import DatasetRepository
from shared.repositories.jobs import JobRepository
from shared.training_config import FineTuningConfig
from tests.finetuning.installation import Installation, install, write_dataset
from tests.tiny_models import make_model, make_tokenizer
from worker.base_models.formats import MASKED, Example

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

KEYS = range(1, 13)
NUM_HELD_OUT = 24


def examples(number: int, *, seed: int, is_shuffled: bool = False) -> list[Example]:
    """A question of three tokens, the last of which says which token answers; or any token does."""
    source = random.Random(seed)
    found = []
    for _ in range(number):
        key = source.choice(KEYS)
        answer = 40 + (source.choice(KEYS) if is_shuffled else key)
        question = [source.randrange(100, 140), source.randrange(100, 140), key]
        found.append(Example([*question, answer, 0], [MASKED] * 3 + [answer, 0]))
    return found


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that knows what answers look like, and nothing of which belongs where."""
    folder, model = tmp_path_factory.mktemp("base"), make_model("gpt2", dropout=0.0, context=32)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for step in range(60):
        rows = examples(32, seed=1000 + step, is_shuffled=True)
        labels = torch.tensor([row.labels for row in rows])
        loss = model(input_ids=torch.tensor([row.input_ids for row in rows]), labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(folder)
    make_tokenizer(32).save_pretrained(folder)
    return folder


class Site:
    """An installation whose trainings learn the right answers, or shuffled ones; what is held out is right."""

    def __init__(self, installation: Installation) -> None:
        self.installation = installation
        self.storage = installation.storage

    def add_setup(self, *, is_shuffled: bool, num_held_out: int = NUM_HELD_OUT) -> str:
        dataset_id = f"dataset-{is_shuffled}-{num_held_out}"
        with self.installation.database.write() as session:
            setup = JobRepository(session).create("team", "setup", {})
            row = Dataset(id=dataset_id, project_id="team", job_id=setup.id, fingerprint="f" * 64,
                          base_model=self.installation.config.model_name, statistics={})  # fmt: skip
            DatasetRepository(session).add(row, [])
        train = examples(96, seed=1, is_shuffled=is_shuffled)
        nothing = [Example([5, 6], [5, MASKED])]
        write_dataset(self.storage.dataset(dataset_id), train, examples(num_held_out, seed=2) or nothing)
        return setup.id

    def train(self, setup_job_id: str, **parameters: Any) -> Any:
        """The job's row after its end."""
        job = self.installation.claim(self.installation.create(setup_job_id=setup_job_id, **parameters))
        self.installation.run(job)
        return self.installation.row(job)

    def live(self) -> int | None:
        with self.installation.database.read() as session:
            return AdapterRepository(session).get("team", "handbook").live_number

    def history(self) -> list[Promotion]:
        with self.installation.database.read() as session:
            adapters = AdapterRepository(session)
            return list(adapters.history(adapters.get("team", "handbook")))

    def messages(self, row: Any) -> list[Any]:
        with self.installation.database.read() as session:
            return list(JobRepository(session).events(row.id, type="message", limit=1000))


@pytest.fixture
def site(tmp_path: Path, base_folder: Path) -> Iterator[Site]:
    config = FineTuningConfig(
        model_name=str(base_folder), learning_rate=2e-2, num_epochs=6, batch_size=16, gradient_accumulation_steps=1,
        lora_rank=8, lora_alpha=16, lora_dropout=0.0, max_length=32,
    )  # fmt: skip
    made = install(tmp_path / "data", config)
    yield Site(made)
    made.database.close()


def test_what_learned_goes_live_and_what_learned_shuffled_answers_is_held(site: Site) -> None:
    shuffled, right = site.add_setup(is_shuffled=True), site.add_setup(is_shuffled=False)
    lost = site.train(shuffled)
    assert lost.status == "succeeded"
    assert lost.result["promoted"] is False
    assert site.live() is None
    (held,) = site.history()
    assert (held.action, held.from_number, held.to_number) == ("hold", None, None)
    assert held.decision == lost.result["decision"]
    assert held.reason.startswith("version 1: Held-out loss ")
    (told,) = (one for one in site.messages(lost) if "gate" in one.data)
    assert told.message.startswith("The new version does not go live. Held-out loss ")
    assert told.data["gate"] == held.decision

    won = site.train(right)
    assert won.result["promoted"] is True
    assert site.live() == won.result["version"] == 2
    assert site.history()[0].action == "publish"
    (comparison,) = won.result["decision"]["comparisons"]
    assert comparison["rival"] == "base"
    assert comparison["difference"]["num_examples"] == NUM_HELD_OUT
    assert comparison["difference"]["high"] < 0
    assert comparison["loss"] == pytest.approx(won.result["metrics"]["validation_loss"], abs=1e-5)
    assert comparison["rival_loss"] == pytest.approx(won.result["metrics"]["base_loss"], abs=1e-5)

    worse = site.train(shuffled)
    assert worse.result["promoted"] is False
    assert site.live() == 2
    assert [one["rival"] for one in worse.result["decision"]["comparisons"]] == ["base", "live"]
    live = worse.result["decision"]["comparisons"][1]
    assert (live["version"], live["is_better"]) == (2, False)
    assert live["rival_loss"] == pytest.approx(comparison["loss"], abs=1e-5)
    with site.installation.database.write() as session:
        adapters = AdapterRepository(session)
        assert adapters.earlier(adapters.get("team", "handbook")) == []
        assert adapters.promote("team", "handbook", 3, "by hand").live_number == 3
        assert [one.number for one in adapters.earlier(adapters.get("team", "handbook"))] == [2]
        assert adapters.rollback("team", "handbook", "worse").live_number == 2


def test_the_policy_is_the_trainings_else_the_adapters_else_the_settings(site: Site) -> None:
    shuffled, quick = site.add_setup(is_shuffled=True), _quick(site)
    assert site.train(shuffled, promotion="manual", config=quick).result["promoted"] is False
    assert site.live() is None
    assert site.train(shuffled, promotion="always", config=quick).result["promoted"] is True
    assert site.live() == 2
    with site.installation.database.write() as session:
        AdapterRepository(session).set_policy("team", "handbook", PromotionPolicy(mode="always"))
    assert site.train(shuffled, config=quick).result["decision"]["policy"]["mode"] == "always"
    manual = replace(site.installation, settings=site.installation.settings.model_copy(update={"promotion": "manual"}))
    with site.installation.database.write() as session:
        AdapterRepository(session).set_policy("team", "other", PromotionPolicy(mode="always"))
    for adapter, is_promoted in (("other", True), ("third", False)):
        row = Site(manual).train(shuffled, adapter=adapter, config=quick)
        assert row.result["promoted"] is is_promoted


def test_few_held_out_examples_decide_by_the_losses_alone_and_none_say_nothing(site: Site) -> None:
    few = site.train(site.add_setup(is_shuffled=False, num_held_out=6))
    assert few.result["promoted"] is True
    assert "6 examples; with fewer than 20 the losses alone decide" in few.result["decision"]["reason"]
    none = site.train(site.add_setup(is_shuffled=True, num_held_out=0))
    assert none.result["promoted"] is True
    assert none.result["decision"]["reason"].startswith("Nothing is held out")
    assert site.live() == 2


def test_a_live_version_that_cannot_be_compared_costs_the_comparison_and_not_the_training(site: Site) -> None:
    right = site.add_setup(is_shuffled=False)
    site.train(right)
    (live,) = site.installation.versions()
    folder = site.storage.version(live.id)
    weights = (folder / "adapter_model.safetensors").read_bytes()
    (folder / "adapter_model.safetensors").write_bytes(weights[:-1] + b"x")
    damaged = site.train(right)
    (note,) = damaged.result["decision"]["notes"]
    assert note.startswith("Version 1, which is live, was not compared: ")
    assert [one["rival"] for one in damaged.result["decision"]["comparisons"]] == ["base"]
    assert damaged.result["promoted"] is True
    assert any(note in one.message for one in site.messages(damaged))
    shutil.rmtree(site.storage.version(site.installation.versions()[0].id))
    gone = site.train(right)
    assert gone.result["promoted"] is True
    assert gone.result["decision"]["notes"][0].startswith("Version 2, which is live, was not compared: ")


def test_a_live_version_with_other_layers_is_compared_and_leaves_nothing_behind(site: Site) -> None:
    right = site.add_setup(is_shuffled=False)
    config = site.installation.config
    other = config.model_copy(update={"target_modules": ("c_fc",), "lora_rank": 2})
    site.train(right, config=other.model_dump(mode="json"))
    again = site.train(right, config=config.model_copy(update={"target_modules": ("c_attn",)}).model_dump(mode="json"))
    assert [one["rival"] for one in again.result["decision"]["comparisons"]] == ["base", "live"]
    first = site.train(right, promotion="manual").result
    assert again.result["decision"]["comparisons"][1]["rival_loss"] != first["metrics"]["validation_loss"]
    newest = site.storage.version(site.installation.versions()[0].id)
    assert not [path for path in newest.iterdir() if path.is_dir()]


def test_another_version_that_goes_live_meanwhile_is_compared_before_the_new_one_is_entered(
    site: Site, tmp_path: Path
) -> None:
    right, shuffled = site.add_setup(is_shuffled=False), site.add_setup(is_shuffled=True)
    job = site.installation.claim(site.installation.create(setup_job_id=shuffled, config=_quick(site)))
    is_other_done: list[Any] = []

    def other_first() -> bool:
        """Asked before each pass; once the weights are staged, another training overtakes this one."""
        if not is_other_done and any((site.storage.root / "staging").iterdir()):
            is_other_done.append(True)
            with torch.enable_grad():
                is_other_done.append(site.train(right))
        return False

    site.installation.run(job, other_first)
    row = site.installation.row(job)
    assert is_other_done[1].result["version"] == 1
    assert row.result["version"] == 2
    assert [one["rival"] for one in row.result["decision"]["comparisons"]] == ["base", "live"]
    assert row.result["promoted"] is False
    assert site.live() == 1
    assert len([one for one in site.messages(row) if "gate" in one.data]) == 1


def _quick(site: Site) -> dict[str, Any]:
    return site.installation.config.model_copy(update={"num_epochs": 1}).model_dump(mode="json")


def test_a_job_that_is_stopped_while_it_compares_goes_on_later_and_decides_once(site: Site) -> None:
    right = site.add_setup(is_shuffled=False)
    job = site.installation.claim(site.installation.create(setup_job_id=right))
    site.installation.run(job, lambda: any((site.storage.root / "staging").iterdir()))
    assert site.installation.row(job).status == "running"
    assert site.installation.versions() == []
    assert not list((site.storage.root / "staging").iterdir())
    with site.installation.database.write() as session:
        JobRepository(session).hand_back(job.claim)
    second = site.installation.claim(site.installation.row(job))
    site.installation.run(second)
    assert site.installation.row(second).result["promoted"] is True
    assert len(site.history()) == 1


def test_an_attempt_that_died_loading_the_live_version_is_followed_by_one_that_does_without(site: Site) -> None:
    right = site.add_setup(is_shuffled=False)
    site.train(right)
    (live,) = site.installation.versions()
    job = site.installation.claim(site.installation.create(setup_job_id=right))
    folder = site.storage.checkpoints(job.claim.job_id)
    folder.mkdir(parents=True)
    (folder / "comparing.json").write_text(f'{{"version_id": "{live.id}", "num_deaths": 0}}')
    with site.installation.database.write() as session:
        JobRepository(session).crash(job.claim, 3, "Killed by the kernel.", is_memory=True)
    second = site.installation.claim(site.installation.row(job))
    site.installation.run(second)
    decision = site.installation.row(second).result["decision"]
    assert decision["notes"] == ["Version 1, which is live, was not compared: memory ran out when an earlier attempt "
                                 "loaded it."]  # fmt: skip
    assert not folder.exists()


def test_a_sweeps_trial_becomes_a_checkpoint_and_leaves_what_its_gate_measured(site: Site) -> None:
    right = site.add_setup(is_shuffled=False)
    site.train(right)
    row = site.train(right, sweep_job_id="sweep-1", trial=3, config=_quick(site))
    assert row.status == "succeeded"
    assert len(site.installation.versions()) == 1
    with site.installation.database.read() as session:
        checkpoint = session.get(ModelCheckpoint, row.result["checkpoint_id"])
    assert checkpoint is not None
    assert (checkpoint.job_id, checkpoint.adapter) == (row.id, "handbook")
    assert (site.storage.version(checkpoint.id) / "manifest.json").is_file()
    found = GateEvidence.load(site.storage.evaluation(row.id))
    assert found.live_version == 1
    assert len(found.num_tokens) == len(found.own) == NUM_HELD_OUT
    decision = decide(PromotionPolicy(), found)
    assert decision.comparisons[0].loss == pytest.approx(row.result["metrics"]["validation_loss"], abs=1e-5)
    assert decision.comparisons[0].rival_loss == pytest.approx(row.result["metrics"]["base_loss"], abs=1e-5)
    assert not decision.is_promoted  # one epoch against six
