"""What a script for the hosted fine-tuning API does, against this service: only `base_url` is another.

    export OPENAI_BASE_URL=http://localhost:8000/v1 OPENAI_API_KEY=unused
    python examples/openai_client.py lines.jsonl --model demo

Uploads chat examples, fine-tunes, follows the job, pauses and resumes it, looks at its checkpoints, asks the new model,
answers a batch with it, and removes what it made.
"""

from __future__ import annotations

import json
import time
from argparse import ArgumentParser, Namespace
from contextlib import suppress
from pathlib import Path

from openai import BadRequestError, OpenAI
from openai.types import Batch
from openai.types.fine_tuning import FineTuningJob

ENDED = ("succeeded", "failed", "cancelled")


def main(options: list[str] | None = None, client: OpenAI | None = None) -> None:
    """The whole life of a fine-tuning job; raises `RuntimeError` if it fails."""
    chosen = _parsed(options)
    client = client or OpenAI()
    training_file = client.files.create(file=chosen.file, purpose="fine-tune")
    print("uploaded", training_file.id)
    job = client.fine_tuning.jobs.create(
        model=chosen.model,
        training_file=training_file.id,
        suffix=chosen.suffix,
        seed=7,
        method={"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": chosen.epochs}}},
        metadata={"script": "examples/openai_client.py"},
        extra_body={"lora": {"rank": 8}},  # what the hosted API has no field for
    )
    print("created", job.id)
    job = _followed(client, job, pauses=chosen.pause)
    if job.status != "succeeded" or job.fine_tuned_model is None:
        raise RuntimeError(f"the job is {job.status}: {job.error.message if job.error else ''}")
    print("trained", job.fine_tuned_model, "on", job.trained_tokens, "tokens")
    for checkpoint in client.fine_tuning.jobs.checkpoints.list(job.id):
        print("checkpoint", checkpoint.step_number, checkpoint.fine_tuned_model_checkpoint)
    for result in job.result_files:
        print("metrics", client.files.content(result).text.splitlines()[0])
    ask(client, job.fine_tuned_model, chosen.question)
    answer_batch(client, job.fine_tuned_model, [chosen.question, "Who are you?"])
    client.files.delete(training_file.id)


def ask(client: OpenAI, model: str, question: str) -> None:
    """One answer at once, and one as it is written."""
    whole = client.chat.completions.create(
        model=model, messages=[{"role": "user", "content": question}], max_tokens=32, temperature=0
    )
    print("answer:", whole.choices[0].message.content)
    stream = client.chat.completions.create(
        model=model,
        messages=[{"role": "user", "content": question}],
        max_tokens=32,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    print("streamed:", end=" ")
    for chunk in stream:
        if chunk.choices:
            print(chunk.choices[0].delta.content or "", end="", flush=True)
        elif chunk.usage is not None:
            print(f" ({chunk.usage.total_tokens} tokens)")


def answer_batch(client: OpenAI, model: str, questions: list[str]) -> None:
    """A file of questions, answered behind those that people wait for."""
    lines = [
        {
            "custom_id": f"question-{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": model, "max_tokens": 32, "messages": [{"role": "user", "content": question}]},
        }
        for number, question in enumerate(questions)
    ]
    content = "".join(json.dumps(line) + "\n" for line in lines).encode()
    questions_file = client.files.create(file=("questions.jsonl", content), purpose="batch")
    batch = client.batches.create(
        input_file_id=questions_file.id, endpoint="/v1/chat/completions", completion_window="24h"
    )
    batch = _ended(client, batch)
    if batch.output_file_id is None:
        raise RuntimeError(f"the batch is {batch.status}")
    for line in client.files.content(batch.output_file_id).text.splitlines():
        answer = json.loads(line)
        print(answer["custom_id"], answer["response"]["body"]["choices"][0]["message"]["content"])
    client.files.delete(questions_file.id)
    client.files.delete(batch.output_file_id)


def _followed(client: OpenAI, job: FineTuningJob, *, pauses: bool) -> FineTuningJob:
    """The job at its end; its events are printed once each. `pauses`: rests once, when it runs."""
    seen: set[str] = set()
    has_paused = not pauses
    while True:
        job = client.fine_tuning.jobs.retrieve(job.id)
        for event in reversed(list(client.fine_tuning.jobs.list_events(job.id, limit=100))):
            if event.id not in seen:
                seen.add(event.id)
                print(" ", event.message)
        if job.status in ENDED:
            return job
        if job.status == "running" and not has_paused:
            has_paused = True
            with suppress(BadRequestError):  # it may have ended just now
                client.fine_tuning.jobs.pause(job.id)
                client.fine_tuning.jobs.resume(_paused(client, job).id)
        time.sleep(0.5)


def _paused(client: OpenAI, job: FineTuningJob) -> FineTuningJob:
    """The job when it rests: it writes a checkpoint first. The client's type knows no `paused`, so that the service
    shows such a job as queued, and says more in a field of its own."""
    while job.to_dict().get("native_status") not in ("paused", *ENDED):
        time.sleep(0.5)
        job = client.fine_tuning.jobs.retrieve(job.id)
    return job


def _ended(client: OpenAI, batch: Batch) -> Batch:
    while batch.status not in ("completed", "failed", "expired", "cancelled"):
        time.sleep(0.5)
        batch = client.batches.retrieve(batch.id)
    return batch


def _parsed(options: list[str] | None) -> Namespace:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="chat examples, a JSON line each: {'messages': [...]}")
    parser.add_argument("--model", default="microsoft/DialoGPT-medium")
    parser.add_argument("--suffix", default="example")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--question", default="How many days of leave do I get?")
    parser.add_argument("--pause", action="store_true", help="pause and resume the job once")
    return parser.parse_args(options)


if __name__ == "__main__":
    main()
