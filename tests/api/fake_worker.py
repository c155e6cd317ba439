"""A small inference worker without a model: it speaks the real streams and answers as it is told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from types import TracebackType

import redis

from shared.messages import Answer, Choice, Quality, Question, Refusal, Reply, TokenChunk, Usage
from shared.streams import ABORTS, GROUP, QUESTIONS

Script = Callable[[Question], Iterable[Reply]]


class FakeWorker:
    """Answers questions by `script`, and notes questions and aborts, from `with` until its end. One that `is_dying`
    leaves them as a worker does that is killed: taken, and not done."""

    def __init__(self, redis_url: str, script: Script, *, is_dying: bool = False) -> None:
        self.questions: list[Question] = []
        self.aborts: list[str] = []
        self.has_aborted = threading.Event()
        self._script = script
        self._is_dying = is_dying
        self._redis = redis.Redis.from_url(redis_url, decode_responses=True, protocol=2)
        self._is_stopping = threading.Event()
        self._aborts = self._redis.pubsub(ignore_subscribe_messages=True)
        self._threads = [threading.Thread(target=self._work), threading.Thread(target=self._listen)]

    def __enter__(self) -> FakeWorker:
        self._redis.xgroup_create(QUESTIONS, GROUP, id="0", mkstream=True)
        self._aborts.subscribe(ABORTS)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_stopping.set()
        for thread in self._threads:
            thread.join()
        self._aborts.close()
        self._redis.close()

    def _work(self) -> None:
        while not self._is_stopping.is_set():
            for _, entries in self._redis.xreadgroup(GROUP, "fake", {QUESTIONS: ">"}, count=1, block=50) or []:
                for entry_id, fields in entries:
                    question = Question.model_validate_json(fields["question"])
                    self.questions.append(question)
                    for reply in self._script(question):
                        self._redis.xadd(question.reply_to, {"reply": reply.model_dump_json()})
                    if self._is_dying:
                        continue
                    self._redis.xack(QUESTIONS, GROUP, entry_id)
                    self._redis.xdel(QUESTIONS, entry_id)

    def _listen(self) -> None:
        while not self._is_stopping.is_set():
            message = self._aborts.get_message(timeout=0.05)
            if message is not None:
                self.aborts.append(message["data"])
                self.has_aborted.set()


def tokens(question: Question, *texts: str) -> list[Reply]:
    """Chunks that follow each other."""
    offsets = [len("".join(texts[:index])) for index in range(len(texts))]
    return [
        TokenChunk(question_id=question.id, text=text, offset=offset)
        for text, offset in zip(texts, offsets, strict=True)
    ]


def answer(question: Question, text: str) -> Answer:
    """The end of an answer by whom the question asked for; version 1 if it names an adapter. All choices are alike."""
    quality = Quality(mean_logprob=-0.5, repetition=0.0)
    num_choices = question.sampling.n
    return Answer(
        question_id=question.id,
        text=text,
        model=question.model,
        adapter=question.adapter,
        version=None if question.adapter is None else question.version or 1,
        fallback=False,
        finish_reason="stop",
        usage=Usage(prompt_tokens=3, completion_tokens=2),
        quality=quality,
        queue_ms=1.0,
        first_token_ms=2.0,
        choices=tuple(
            Choice(index=index, text=text, finish_reason="stop", completion_tokens=2, quality=quality)
            for index in range(num_choices if num_choices > 1 else 0)
        ),
    )


def echo(question: Question) -> list[Reply]:
    """Streams the question back in two pieces."""
    text = question.turns[-1].content
    return [*tokens(question, text[:2], text[2:]), answer(question, text)]


def refuse(code: str, detail: str) -> Script:
    return lambda question: [Refusal(question_id=question.id, code=code, detail=detail)]


def say_nothing(question: Question) -> list[Reply]:
    return []
