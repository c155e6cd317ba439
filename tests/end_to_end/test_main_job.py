"""From a document to an answer, through every process, for each architecture and on both databases."""

from __future__ import annotations

import json
import threading
import time
from contextlib import suppress

import httpx
import psutil
import pytest
import torch
from peft import PeftModel

from tests.end_to_end.conftest import RunningStack
from tests.tiny_models import ARCHITECTURES
from tests.waiting import until
from worker.base_models.formats import PromptFormat, encode_prompt
from worker.base_models.loading import load_model, load_tokenizer

FAQ = "question,answer\n" + "".join(
    f"Which colour has door {number}?,Door {number} is {colour}.\n"
    for number, colour in enumerate(["red", "blue", "green", "black", "white", "grey", "pink", "brown"])
)
# What is asked here is live whatever the gate would say of it.
QUICK = {
    "num_epochs": 1, "batch_size": 2, "gradient_accumulation_steps": 1, "lora_rank": 4, "learning_rate": 1e-2,
    "promotion": "always",
}  # fmt: skip


def prose(seed: int) -> str:
    return "\n\n".join(
        f"Paragraph {number} of house {seed}. The door of room {number} is open in the morning and shut at night."
        for number in range(12)
    )


def upload_documents(stack: RunningStack, tag: str) -> list[str]:
    rows = stack.upload(
        (f"{tag}.csv", FAQ + f"Who?,{tag}.\n"), *((f"{tag}{n}.txt", f"{tag} {prose(n)}") for n in (1, 2))
    )
    return [row["id"] for row in rows]


def train(stack: RunningStack, architecture: str, adapter: str, **more: object) -> dict[str, object]:
    answer = stack.post(
        "/fine-tuning/setup",
        model=stack.model(architecture),
        adapter=adapter,
        document_ids=upload_documents(stack, adapter),
        max_length=96,
        **{**QUICK, **more},
    )
    setup = stack.wait(answer["job_id"])
    assert setup["status"] == "succeeded", setup
    training = stack.wait(answer["training_job_id"])
    assert training["status"] == "succeeded", training
    return training


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_document_becomes_an_answer(stack: RunningStack, architecture: str) -> None:
    training = train(stack, architecture, f"doors-{architecture}")
    answer = stack.ask("Which colour has door 1?", adapter=f"doors-{architecture}", max_new_tokens=8)
    assert (answer["adapter"], answer["version"], answer["fallback"]) == (f"doors-{architecture}", 1, False)
    assert answer["model"] == stack.model(architecture)
    assert answer["usage"]["completion_tokens"] <= 8
    assert answer["latency_ms"] > 0
    metrics = training["result"]["metrics"]  # type: ignore[index]
    assert metrics["validation_loss"] < metrics["base_loss"]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_main_job_works_on_postgres(postgres_stack: RunningStack, architecture: str) -> None:
    train(postgres_stack, architecture, f"doors-{architecture}")
    answer = postgres_stack.ask("Which colour has door 1?", adapter=f"doors-{architecture}", max_new_tokens=4)
    assert (answer["version"], answer["fallback"]) == (1, False)
    assert postgres_stack.get("/fine-tuning/status")["trained"] is True
    (evaluation,) = postgres_stack.get(f"/fine-tuning/evaluations?adapter=doors-{architecture}")["data"]
    assert postgres_stack.wait(evaluation["id"])["status"] == "succeeded", "it follows the training by itself"
    found = postgres_stack.get(f"/fine-tuning/evaluations/{evaluation['id']}")
    assert (found["purpose"], found["columns"]) == ("training", ["base", f"doors-{architecture}@1"])
    (loss,) = [one for one in found["report"]["pairs"] if one["metric"] == "loss" and one["source"] == "held_out"]
    assert loss["difference"]["value"] < 0


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_the_published_folder_gives_the_same_greedy_answer_with_plain_peft(
    stack: RunningStack, architecture: str
) -> None:
    name = f"plain-{architecture}"
    training = train(stack, architecture, name)
    (folder,) = [
        path.parent
        for path in (stack.data_dir / "adapters").glob("*/manifest.json")
        if json.loads(path.read_text())["job_id"] == training["id"]
    ]
    base = load_model(stack.model(architecture))
    tokenizer = load_tokenizer(str(folder))
    prompt = encode_prompt(PromptFormat.TEXT, tokenizer, [{"role": "user", "content": "Which colour has door 1?"}])
    model = PeftModel.from_pretrained(base, folder).eval()
    ids = torch.tensor([prompt])
    output = model.generate(
        input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False,
        pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    expected = tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True).strip()
    answer = stack.ask("Which colour has door 1?", adapter=name, max_new_tokens=12)
    assert answer["answer"] == expected


def test_a_new_version_answers_within_a_second_of_its_publication_without_a_restart(stack: RunningStack) -> None:
    train(stack, "gpt2", "swap")
    assert stack.ask("Who?", adapter="swap", max_new_tokens=1)["version"] == 1
    training = train(stack, "gpt2", "swap", seed=1)
    answer = stack.ask("Who?", adapter="swap", max_new_tokens=1)
    assert answer["version"] == 2
    assert training["result"]["version"] == 2  # type: ignore[index]
    stack.post("/fine-tuning/adapters/swap/rollback", 200)
    assert stack.ask("Who?", adapter="swap", max_new_tokens=1)["version"] == 1


def test_without_an_adapter_the_base_model_answers_and_says_so(stack: RunningStack) -> None:
    answer = stack.ask("Hello?", adapter="never-trained", max_new_tokens=3)
    assert answer["fallback"] is True
    assert answer["fallback_reason"]
    assert (answer["adapter"], answer["version"], answer["model"]) == (None, None, "demo")
    refused = stack.http.post(
        "/fine-tuning/query", data={"query": "x", "adapter": "never-trained", "fallback": "false"}
    )
    assert (refused.status_code, refused.json()["error"]) == (404, "adapter_not_found")


def test_a_broken_version_is_not_served_and_the_answer_says_so(stack: RunningStack) -> None:
    train(stack, "gpt2", "broken")
    (weights,) = [
        path.parent / "adapter_model.safetensors"
        for path in (stack.data_dir / "adapters").glob("*/manifest.json")
        if json.loads(path.read_text())["job_id"]
        == stack.get("/fine-tuning/adapters/broken")["versions"][0]["lineage"]["job_id"]
    ]
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    answer = stack.ask("Who?", adapter="broken", max_new_tokens=2)
    assert answer["fallback"] is True
    assert answer["version"] is None


def test_an_answer_streams_as_events_that_add_up_to_it(stack: RunningStack) -> None:
    text, whole = "", None
    with stack.http.stream(
        "POST", "/fine-tuning/query", json={"query": "Hi", "stream": True, "model": "demo"}
    ) as lines:
        event = ""
        for line in lines.iter_lines():
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: "):
                data = json.loads(line.removeprefix("data: "))
                if event == "token":
                    text += data["text"]
                elif event == "answer":
                    whole = data
    assert whole is not None
    assert text.strip() == whole["answer"].strip()


def test_a_form_field_asks_as_curl_does(stack: RunningStack) -> None:
    answer = stack.http.post("/fine-tuning/query", files={"query": (None, "What is it?")})
    assert answer.status_code == 200, answer.text
    assert set(answer.json()) >= {"answer", "model", "adapter", "version", "fallback", "usage", "latency_ms", "quality"}


def test_a_running_training_is_cancelled_at_once_and_publishes_nothing(stack: RunningStack) -> None:
    answer = stack.post(
        "/fine-tuning/setup",
        model=stack.model("gpt2"),
        adapter="cancelled",
        document_ids=upload_documents(stack, "cancelled"),
        max_length=96,
        **{**QUICK, "num_epochs": 1000},
    )
    stack.wait(answer["training_job_id"], "running")
    assert stack.post(f"/fine-tuning/jobs/{answer['training_job_id']}/cancel", 200)["status"] == "cancelled"
    again = stack.http.post(f"/fine-tuning/jobs/{answer['training_job_id']}/cancel")
    assert (again.status_code, again.json()["error"]) == (409, "illegal_transition")
    assert stack.http.get("/fine-tuning/adapters/cancelled").status_code == 404


def test_a_paused_training_resumes_where_it_was(stack: RunningStack) -> None:
    answer = stack.post(
        "/fine-tuning/setup",
        model=stack.model("gpt2"),
        adapter="paused",
        document_ids=upload_documents(stack, "paused"),
        max_length=96,
        **{**QUICK, "num_epochs": 12},
    )
    job_id = answer["training_job_id"]
    stack.wait(job_id, "running")
    while not stack.job(job_id)["progress"].get("step"):
        assert stack.job(job_id)["status"] == "running"
    stack.post(f"/fine-tuning/jobs/{job_id}/pause", 200)
    step = stack.wait(job_id, "paused")["progress"]["step"]
    stack.post(f"/fine-tuning/jobs/{job_id}/resume", 200)
    job = stack.wait(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 2)
    steps = [
        metrics["step"] for metrics in stack.get(f"/fine-tuning/jobs/{job_id}/metrics")["data"] if "step" in metrics
    ]
    assert min(one for one in steps if one > step - 1) <= step + 2


def test_a_bad_document_does_not_disturb_its_neighbours(stack: RunningStack) -> None:
    answer = stack.http.post(
        "/documents",
        files=[
            ("files", ("good.txt", "neighbours " + prose(3))),
            ("files", ("empty.txt", b"")),
            ("files", ("fake.pdf", b"PK\x03\x04 this is a zip")),
            ("files", ("odd.exe", b"MZ")),
        ],
    )
    assert answer.status_code == 201
    rows = answer.json()["data"]
    assert [row["status"] for row in rows] == ["uploaded", "rejected", "rejected", "rejected"]
    assert [row["error"] and row["error"]["code"] for row in rows] == [
        None,
        "document_empty",
        "document_mislabelled",
        "document_unsupported",
    ]


def test_a_corrupt_document_is_named_and_the_others_are_learned(stack: RunningStack) -> None:
    good, *_ = upload_documents(stack, "corrupt")
    (bad,) = stack.upload(("corrupt.pdf", b"%PDF-1.7\nthis is no pdf at all"))
    answer = stack.post(
        "/fine-tuning/setup", model=stack.model("gpt2"), document_ids=[good, bad["id"]], train=False, max_length=96
    )
    job = stack.wait(answer["job_id"])
    assert job["status"] == "succeeded", job
    assert [one["id"] for one in job["result"]["failed_documents"]] == [bad["id"]]
    assert stack.get(f"/documents/{bad['id']}")["error"]["code"] == "document_corrupt"


def test_a_setup_that_finds_nothing_to_learn_fails_with_a_code_and_so_does_its_training(stack: RunningStack) -> None:
    (tiny,) = stack.upload(("tiny.txt", "One."))
    answer = stack.post("/fine-tuning/setup", model=stack.model("gpt2"), document_ids=[tiny["id"]])
    assert stack.wait(answer["job_id"])["error"]["code"] == "too_few_examples"
    training = stack.wait(answer["training_job_id"])
    assert (training["status"], training["error"]["code"]) == ("failed", "setup_failed")


def test_a_model_that_cannot_be_reached_fails_the_job_with_what_to_do(stack: RunningStack) -> None:
    (row,) = stack.upload(("reach.txt", "reach " + prose(4)))
    answer = stack.post("/fine-tuning/setup", model="nobody/knows-it", document_ids=[row["id"]])
    error = stack.wait(answer["job_id"])["error"]
    assert error["code"] == "base_model_offline"
    assert "demo" in error["detail"]


def test_a_model_outside_the_allow_list_is_refused_before_anything_is_queued(stack: RunningStack) -> None:
    refused = stack.http.post("/fine-tuning/setup", json={"model": "somebody/else"})
    assert (refused.status_code, refused.json()["error"]) == (422, "model_not_allowed")


def test_events_of_a_training_follow_live_and_replay_from_where_a_client_was(stack: RunningStack) -> None:
    training = train(stack, "gpt2", "events")
    url = f"/fine-tuning/jobs/{training['id']}/events?stream=true"
    ids = [line[4:] for line in stack.http.get(url).text.splitlines() if line.startswith("id: ")]
    assert ids == sorted(ids, key=int)
    rest = stack.http.get(url, headers={"Last-Event-ID": ids[2]}).text
    assert [line[4:] for line in rest.splitlines() if line.startswith("id: ")] == ids[3:]
    messages = [event["message"] for event in stack.get(f"/fine-tuning/jobs/{training['id']}/events?limit=100")["data"]]
    assert any("training loss=" in message for message in messages)


def test_a_killed_trainer_is_started_again_and_the_job_succeeds(stack: RunningStack) -> None:
    answer = stack.post(
        "/fine-tuning/setup",
        model=stack.model("gpt2"),
        adapter="killed",
        document_ids=upload_documents(stack, "killed"),
        max_length=96,
        **{**QUICK, "num_epochs": 8},
    )
    job_id = answer["training_job_id"]
    stack.wait(job_id, "running")
    while not stack.job(job_id)["progress"].get("step"):
        assert stack.job(job_id)["status"] == "running"
    trainers = [
        process
        for process in psutil.Process(stack.process.pid).children(recursive=True)
        if any("forkserver" in word for word in process.parent().cmdline())
    ]
    assert len(trainers) == 1
    trainers[0].kill()
    job = stack.wait(job_id)
    assert (job["status"], job["attempt"]) == ("succeeded", 2)


def test_a_worker_that_is_restarted_finds_its_adapters_again(stack: RunningStack) -> None:
    train(stack, "gpt2", "restarted")
    for worker in _running(stack, "worker.inference"):
        worker.kill()
    deadline = time.monotonic() + 60
    while True:
        answer = stack.http.post("/fine-tuning/query", json={"query": "Who?", "adapter": "restarted"}, timeout=90)
        if answer.status_code == 200 or time.monotonic() > deadline:
            break
    assert answer.json()["version"] == 1


def test_a_client_that_goes_away_does_not_disturb_the_others(stack: RunningStack) -> None:
    body = {"query": "Tell me a long story", "stream": True, "model": "demo", "max_new_tokens": 400}
    with stack.http.stream("POST", "/fine-tuning/query", json=body) as answer:
        next(answer.iter_lines())
    answers: list[httpx.Response] = []
    threads = [
        threading.Thread(
            target=lambda: answers.append(
                stack.http.post("/fine-tuning/query", json={"query": "Hi", "model": "demo", "max_new_tokens": 4})
            )
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [answer.status_code for answer in answers] == [200] * 4


def test_the_stack_was_ready_in_time_and_lists_its_parts(stack: RunningStack) -> None:
    ready = stack.get("/health/ready")
    assert ready["ready"] is True
    # A worker that another test has killed counts until its heartbeat has faded.
    until(lambda: stack.get("/fine-tuning/status")["inference_workers"] == 1)
    assert stack.get("/fine-tuning/status")["training_workers"] == 1


def test_the_doctor_finds_nothing_but_what_a_test_has_damaged(stack: RunningStack) -> None:
    found = stack.get("/maintenance/doctor?deep=true")["findings"]
    assert [one for one in found if one["subject"] != "broken@1"] == []


def _running(stack: RunningStack, module: str) -> list[psutil.Process]:
    """The stack's processes whose command ends in `module`. Others (a document's reader) may end at any moment."""
    found = []
    for process in psutil.Process(stack.process.pid).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if process.status() != psutil.STATUS_ZOMBIE and process.cmdline()[-1:] == [module]:
                found.append(process)
    return found
