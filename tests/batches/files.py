"""Inputs and outputs of batches in tests, and an answerer that needs no model."""

from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

from shared.batch_parameters import BatchLine
from shared.errors import PromptTooLong
from shared.messages import Answer, Quality, Usage
from worker.batches.output import Result


def write_input(path: Path, *lines: Any) -> Path:
    path.write_text("".join(f"{line if isinstance(line, str) else json.dumps(line)}\n" for line in lines))
    return path


def questions(number: int, **options: Any) -> list[dict[str, Any]]:
    return [{"query": f"Question {index}", "custom_id": f"q{index}", **options} for index in range(1, number + 1)]


def chat_lines(number: int, **body: Any) -> list[dict[str, Any]]:
    """Requests of OpenAI's dialect."""
    return [chat_line(f"q{index}", f"Question {index}", **body) for index in range(1, number + 1)]


def chat_line(custom_id: str, said: str, **body: Any) -> dict[str, Any]:
    body = {"model": "demo", "messages": [{"role": "user", "content": said}], **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/chat/completions", "body": body}


def completion_line(custom_id: str, prompt: Any, **body: Any) -> dict[str, Any]:
    body = {"model": "demo", "prompt": prompt, **body}
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/completions", "body": body}


def read_output(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def times_by_line(path: Path) -> Counter[int]:
    """How often each line of the input is in the output."""
    return Counter(line["line"] for line in read_output(path))


def answer(question_id: str, text: str) -> Answer:
    return Answer(
        question_id=question_id, text=text, model="demo", adapter=None, version=None, fallback=False,
        finish_reason="stop", usage=Usage(prompt_tokens=2, completion_tokens=3),
        quality=Quality(mean_logprob=-1.0, repetition=0.0), queue_ms=0.0, first_token_ms=0.0,
    )  # fmt: skip


class Echo:
    """Answers each query with itself, some at a time and in any order."""

    def __init__(self, num_in_flight: int = 4, seed: int = 0) -> None:
        self.num_in_flight = num_in_flight
        self.most_open = 0
        self.asked: list[int] = []
        self._open: dict[int, BatchLine] = {}
        self._random = random.Random(seed)

    @property
    def num_places(self) -> int:
        return self.num_in_flight - len(self._open)

    @property
    def num_open(self) -> int:
        return len(self._open)

    def ask(self, number: int, line: BatchLine) -> None:
        if line.query == "too long":
            raise PromptTooLong()
        self.asked.append(number)
        self._open[number] = line
        self.most_open = max(self.most_open, len(self._open))

    def results(self) -> list[Result]:
        chosen = self._random.sample(sorted(self._open), self._random.randint(0, len(self._open)))
        lines = [(number, self._open.pop(number)) for number in chosen]
        return [Result(number, line.custom_id, answer("", line.query or "")) for number, line in lines]

    def forget(self) -> None:
        pass
