"""Versions that are promoted and deleted while 32 clients read answers, each of which must be one version's alone.

What each version says is known beforehand: transformers and PEFT have written every answer, alone and offline.
"""

from __future__ import annotations

import asyncio
import random
import shutil
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import torch
from peft import PeftModel
from transformers.convert_slow_tokenizer import bytes_to_unicode

from shared.ids import new_id
from shared.models import AdapterVersion
from shared.repositories.adapters import AdapterRepository
from tests.faults.asking import QUERY, Asked, start_inference
from tests.faults.goals import Outcome, Trial
from tests.faults.http_load import Connections, Reply
from tests.faults.installation import Installation, installation, wait_until_live
from tests.inference.tiny import make_model, make_tokenizer, save_adapter, save_model
from tests.tiny_models import EOS
from worker.adapter_files import MANIFEST, Manifest, list_files
from worker.base_models.formats import Message, PromptFormat, encode_prompt

NUM_STREAMS = 32
NUM_WEIGHTS = 4
NUM_PROMPTS = 4
NUM_TOKENS = 24
NUM_VERSIONS = 5  # that exist at a time
MARGIN = 1e-3  # between the likeliest token and the next: a reference that another order of sums cannot change
ADAPTER = "/fine-tuning/adapters/default"
BASE = None
Weights = int | None  # by their number; `BASE`: the base model without any


@dataclass
class Version:
    """One version by its number, and when it was to be had. A time is that of the request's answer or of its sending,
    whichever allows more."""

    weights: int
    live: list[tuple[float, float]] = field(default_factory=list)
    deleted_from: float = float("inf")


@dataclass
class Stage:
    """The installation, what its versions say, and what has happened to them."""

    installation: Installation
    port: int
    base: Path
    references: dict[tuple[Weights, str], list[int]]
    versions: dict[int, Version] = field(default_factory=dict)
    live: int = 0
    num_answers: int = 0
    num_fallbacks: int = 0
    num_refused: int = 0
    violations: list[str] = field(default_factory=list)

    def prompts(self) -> list[str]:
        return sorted({prompt for _, prompt in self.references})

    def existing(self) -> list[int]:
        return [number for number, one in self.versions.items() if one.deleted_from == float("inf")]


def promote_and_delete(trial: Trial) -> Outcome:
    random_source = random.Random(trial.seed)
    base = save_model("gpt2", trial.folder / "base")
    for weights in range(NUM_WEIGHTS):
        folder = save_adapter("gpt2", trial.folder / f"weights-{weights}", weights)
        make_tokenizer().save_pretrained(folder)
    references = _references(trial.folder, random_source)
    environment = {"FINETUNED_BASE_MODEL": str(base), "FINETUNED_MAX_BATCH_SIZE": str(NUM_STREAMS)}
    with installation(trial, **environment) as installed:
        api = installed.api().start()
        start_inference(installed, installed.inference())
        wait_until_live(api)
        stage = Stage(installed, int(api.environment["FINETUNED_PORT"]), base, references)
        for number in range(NUM_VERSIONS):
            _publish(stage, trial.folder / f"weights-{number % NUM_WEIGHTS}", number % NUM_WEIGHTS)
        started_at = time.monotonic()
        asyncio.run(_change_under_streams(stage, trial, random_source))
        seconds = time.monotonic() - started_at
    figures = {
        "num_answers": stage.num_answers,
        "num_fallbacks": stage.num_fallbacks,
        "num_refused": stage.num_refused,
        "changes_per_second": round(trial.n / seconds, 1),
    }
    return Outcome(trial.n, stage.violations, figures)


async def _change_under_streams(stage: Stage, trial: Trial, random_source: random.Random) -> None:
    is_over = asyncio.Event()
    seeds = [random_source.random() for _ in range(NUM_STREAMS)]
    clients = [asyncio.create_task(_client(stage, random.Random(seed), is_over)) for seed in seeds]
    connections = Connections(stage.port)
    try:
        for number in range(trial.n):
            while stage.num_answers + stage.num_refused < number:  # changes that no answer sees would show nothing
                await asyncio.sleep(0.005)
            await _change(stage, connections, trial.folder, random_source)
    finally:
        is_over.set()
        await asyncio.gather(*clients)
        connections.close()


async def _change(stage: Stage, connections: Connections, folder: Path, random_source: random.Random) -> None:
    """A promotion, or a deletion: mostly of a version that may be deleted, whose place a new one takes."""
    number = random_source.choice(stage.existing())
    if random_source.random() < 0.5:
        return await _promote(stage, connections, number)
    sent_at = time.monotonic()
    if number != stage.live:
        stage.versions[number].deleted_from = sent_at
    reply = await connections.send("DELETE", f"{ADAPTER}/versions/{number}")
    if reply.status != (409 if number == stage.live else 200):
        _complain(stage, f"deleting version {number}", reply)
    if number != stage.live:
        weights = random_source.randrange(NUM_WEIGHTS)
        await asyncio.to_thread(_publish, stage, folder / f"weights-{weights}", weights)
    return None


async def _promote(stage: Stage, connections: Connections, number: int) -> None:
    version, before = stage.versions[number], stage.versions[stage.live]
    version.live.append((time.monotonic(), float("inf")))
    body = f'{{"version": {number}, "reason": "fault test"}}'.encode()
    reply = await connections.send("POST", f"{ADAPTER}/promote", body)
    if reply.status != 200:
        _complain(stage, f"promoting version {number}", reply)
    if before is not version:
        before.live[-1] = (before.live[-1][0], time.monotonic())
    stage.live = number


async def _client(stage: Stage, random_source: random.Random, is_over: asyncio.Event) -> None:
    """Asks and asks again: mostly the live version, at times one by its number, which may be gone."""
    while not is_over.is_set():
        question = {
            "query": random_source.choice(stage.prompts()),
            "adapter": "default",
            "stream": True,
            "fallback": random_source.random() < 0.3,
            "logprobs": 0,
            "max_new_tokens": NUM_TOKENS,
        }
        if random_source.random() < 0.3:
            question["version"] = random_source.choice(list(stage.versions)[-2 * NUM_VERSIONS :])
        asked = Asked(stage.port, QUERY, question)
        await asked.task
        stage.violations += [f"{problem}: {question}"[:300] for problem in _problems(stage, asked)]


def _problems(stage: Stage, asked: Asked) -> list[str]:
    """What is wrong with an answer, or with there being none."""
    name, data = asked.end
    number = asked.question.get("version")
    may_be_gone = number is not None and stage.versions[number].deleted_from < asked.ended_at
    if name != "answer":
        stage.num_refused += 1
        is_documented = may_be_gone and not asked.question["fallback"] and asked.status in (404, 409)
        return [] if is_documented else [f"no answer: {asked.status} {data}"]
    stage.num_answers += 1
    if data["fallback"]:
        stage.num_fallbacks += 1
        problems = [] if may_be_gone and asked.question["fallback"] else [f"fallback: {data['fallback_reason']}"]
        return problems + _differences(stage, asked, BASE)
    version = stage.versions[data["version"]]
    problems = _differences(stage, asked, version.weights)
    if number is not None and number != data["version"]:
        problems.append(f"version {data['version']} answered")
    if number is None and not any(since <= asked.ended_at and asked.sent_at <= end for since, end in version.live):
        problems.append(f"version {data['version']} answered, which was not live")
    return problems


def _differences(stage: Stage, asked: Asked, weights: Weights) -> list[str]:
    """Every token is the reference's, and the text that was streamed is the whole answer's."""
    data = asked.end[1]
    tokens = [token for piece in asked.tokens for token in piece.get("logprobs") or ()]
    expected = stage.references[weights, asked.question["query"]]
    found = [byte for token in tokens for byte in token["bytes"]]
    problems = [] if found == expected[: len(found)] else [f"tokens of another version: {found} for {expected}"]
    whole = [byte for token in data["logprobs"] for byte in token["bytes"]]
    problems += [] if whole == expected else [f"the answer has others' tokens: {whole} for {expected}"]
    problems += [] if data["answer"].startswith(asked.text) else ["what was streamed is not the answer"]
    return problems


def _publish(stage: Stage, source: Path, weights: int) -> None:
    """Enters a copy of these weights as the next version; the first is live."""
    version_id = new_id("version-")
    folder = stage.installation.storage.version(version_id)
    shutil.copytree(source, folder)
    manifest = Manifest(
        files=list_files(folder), base_model=str(stage.base), base_revision=None, prompt_format="text",
        dataset_fingerprint="0" * 64, config={}, metrics={}, job_id=None, created_at=0.0, version_id=version_id,
    )  # fmt: skip
    (folder / MANIFEST).write_text(manifest.to_json())
    row = AdapterVersion(id=version_id, base_model=str(stage.base), metrics={}, config={}, size_bytes=1)
    with stage.installation.database.write() as session:
        number = AdapterRepository(session).publish("default", "default", row, is_promoted=False).number
    stage.versions[number] = Version(weights)
    if not stage.live:
        stage.live = number
        stage.versions[number].live.append((0.0, float("inf")))


def _complain(stage: Stage, what: str, reply: Reply) -> None:
    stage.violations.append(f"{what}: {reply.status} {reply.body!r}"[:300])


def _references(folder: Path, random_source: random.Random) -> dict[tuple[Weights, str], list[int]]:
    """The bytes of what each version says to each prompt: such prompts to which all say something else."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT and transformers about each other's deprecated names
        models: dict[Weights, torch.nn.Module] = {BASE: make_model("gpt2")}
        models |= {
            weights: PeftModel.from_pretrained(make_model("gpt2"), str(folder / f"weights-{weights}")).eval()
            for weights in range(NUM_WEIGHTS)
        }
        found: dict[tuple[Weights, str], list[int]] = {}
        while len(found) < NUM_PROMPTS * (NUM_WEIGHTS + 1):
            prompt = "".join(random_source.choices("abcdefghij ", k=random_source.randrange(3, 20))).strip() or "a"
            said = {weights: _said(model, prompt) for weights, model in models.items()}
            answers = [one for one in said.values() if one is not None]
            if len(answers) == len(said) == len({tuple(one[:3]) for one in answers}):
                found.update({(weights, prompt): one for weights, one in said.items() if one is not None})
    return found


def _said(model: torch.nn.Module, prompt: str) -> list[int] | None:
    """The bytes of a greedy answer, one a token; None if it ends early, or if a token was chosen by a hair."""
    tokenizer = make_tokenizer()
    ids = torch.tensor([encode_prompt(PromptFormat.TEXT, tokenizer, [Message(role="user", content=prompt)])])
    for _ in range(NUM_TOKENS):
        with torch.no_grad():
            logits = model(input_ids=ids).logits[0, -1]
        first, second = torch.topk(logits, 2).values.tolist()
        token = int(logits.argmax())
        if token == EOS or first - second < MARGIN:
            return None
        ids = torch.cat([ids, torch.tensor([[token]])], dim=1)
    byte_of = {symbol: byte for byte, symbol in bytes_to_unicode().items()}
    return [byte_of[symbol] for symbol in tokenizer.convert_ids_to_tokens(ids[0, -NUM_TOKENS:].tolist())]
