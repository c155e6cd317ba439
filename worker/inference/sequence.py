"""One answer in flight: its prompt, how its tokens are chosen, and the tokens so far. No torch."""

from __future__ import annotations

import math
import random
from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

FinishReason = Literal["stop", "length"]
NGRAM = 3  # length of the token groups whose repetition is counted


class TextSink(Protocol):
    """Turns tokens into text that will not change any more, and ends it before a stop string."""

    @property
    def has_stopped(self) -> bool:
        """A stop string has come: there is no further text."""

    @property
    def num_tokens(self) -> int:
        """Tokens whose text has been given out, or begun to be."""

    def push(self, token: int) -> str: ...

    def finish(self) -> str: ...


@dataclass(frozen=True)
class AdapterFiles:
    """A version's weights: `key` names it in the engine, `folder` holds PEFT's files."""

    key: str
    folder: Path


@dataclass(frozen=True)
class SamplingParameters:
    """How the tokens are chosen: penalties, then temperature, then top-k, then top-p.

    Temperature 0 is greedy; equal seeds give equal answers; top-k 0 and top-p 1 are off, as are a repetition penalty
    of 1 and other penalties of 0. `logprobs`: None, or how many of the likeliest tokens to keep beside each chosen one.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    top_k: int = 0
    repetition_penalty: float = 1.0
    frequency_penalty: float = 0.0
    presence_penalty: float = 0.0
    logprobs: int | None = None

    @property
    def has_penalties(self) -> bool:
        return self.repetition_penalty != 1 or self.frequency_penalty != 0 or self.presence_penalty != 0


class TokenCounts:
    """The distinct tokens of a sequence, and how many times its answer holds each."""

    def __init__(self, prompt: Iterable[int]) -> None:
        self.ids = array("q", dict.fromkeys(prompt))
        self.times = array("q", [0]) * len(self.ids)
        self._places = {token: place for place, token in enumerate(self.ids)}

    def add(self, token: int) -> None:
        """Counts a token of the answer."""
        place = self._places.setdefault(token, len(self.ids))
        if place == len(self.ids):
            self.ids.append(token)
            self.times.append(0)
        self.times[place] += 1


@dataclass(frozen=True)
class TokenLogprobs:
    """The natural log-probability of a chosen token, and (id, log-probability) of the likeliest in its place."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()


@dataclass(eq=False)
class Sequence:
    """One answer in flight. `deadline` is a moment of the engine's clock; `text` may be missing where only tokens are
    wanted.

    Random numbers are drawn from the sequence's own generator, one a token, so that an answer does not
    depend on what else is in the batch. `choice` counts the answers to one question, from 0.
    """

    id: str
    prompt: list[int]
    sampling: SamplingParameters
    stop_tokens: frozenset[int]
    adapter: AdapterFiles | None = None
    text: TextSink | None = None
    deadline: float = math.inf
    is_alone: bool = False  # runs in a batch of its own: its last batch failed
    project_id: str = ""
    is_background: bool = False  # runs behind those that are not
    question_id: str = ""
    choice: int = 0
    penalizes_prompt: bool = True  # the repetition penalty does; not where the prompt goes to an encoder
    tokens: list[int] = field(default_factory=list)
    started_at: float | None = None
    first_token_at: float | None = None
    logprobs: list[TokenLogprobs] = field(default_factory=list)  # only where the sampling asks for them
    _sum_logprob: float = 0.0

    def __post_init__(self) -> None:
        self._random = random.Random(self.sampling.seed)
        self.max_tokens = self.sampling.max_new_tokens
        is_prompt_counted = self.penalizes_prompt and self.sampling.repetition_penalty != 1
        counted = self.prompt if is_prompt_counted else []
        self.counts = TokenCounts(counted) if self.sampling.has_penalties else None

    def draw(self) -> float:
        """The next random number, uniform in [0, 1)."""
        return self._random.random()

    def append(self, token: int, logprob: float, now: float, top: tuple[tuple[int, float], ...] = ()) -> str:
        """Takes the next token, with the likeliest ones in its place, and returns the text that became certain."""
        self.tokens.append(token)
        self._sum_logprob += logprob
        if self.counts is not None:
            self.counts.add(token)
        if self.sampling.logprobs is not None:
            self.logprobs.append(TokenLogprobs(token, logprob, top))
        self.first_token_at = self.first_token_at or now
        text = "" if self.text is None or token in self.stop_tokens else self.text.push(token)
        return text + (self.text.finish() if self.text is not None and self.finish_reason else "")

    @property
    def length(self) -> int:
        """Tokens of prompt and answer so far."""
        return len(self.prompt) + len(self.tokens)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer is over, or None while it is not. A stop string counts as `stop`, as the end token does."""
        if self.tokens and self.tokens[-1] in self.stop_tokens:
            return "stop"
        if self.text is not None and self.text.has_stopped:
            return "stop"
        return "length" if len(self.tokens) >= self.max_tokens else None

    @property
    def mean_logprob(self) -> float:
        """Mean natural log-probability of the chosen tokens."""
        return self._sum_logprob / max(1, len(self.tokens))

    @property
    def repetition(self) -> float:
        """Share of the answer's 3-grams that occurred in it before, 0 to 1."""
        said = [token for token in self.tokens if token not in self.stop_tokens]
        groups = [tuple(said[start : start + NGRAM]) for start in range(len(said) - NGRAM + 1)]
        return 1 - len(set(groups)) / len(groups) if groups else 0.0
