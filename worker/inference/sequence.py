"""One answer in flight: its prompt, how its tokens are chosen, and the tokens so far. No torch."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

FinishReason = Literal["stop", "length"]
NGRAM = 3  # length of the token groups whose repetition is counted


class TextSink(Protocol):
    """Turns tokens into text that will not change any more."""

    def push(self, token: int) -> str: ...

    def finish(self) -> str: ...


@dataclass(frozen=True)
class AdapterFiles:
    """A version's weights: `key` names it in the engine, `folder` holds PEFT's files."""

    key: str
    folder: Path


@dataclass(frozen=True)
class SamplingParameters:
    """How the tokens are chosen. Temperature 0 is greedy; equal seeds give equal answers."""

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(eq=False)
class Sequence:
    """One answer in flight. `deadline` is in Unix seconds; `text` may be missing where only tokens are wanted.

    Random numbers are drawn from the sequence's own generator, one a token, so that an answer does not
    depend on what else is in the batch.
    """

    id: str
    prompt: list[int]
    sampling: SamplingParameters
    stop_tokens: frozenset[int]
    adapter: AdapterFiles | None = None
    text: TextSink | None = None
    deadline: float = math.inf
    is_alone: bool = False  # runs in a batch of its own: its last batch failed
    tokens: list[int] = field(default_factory=list)
    started_at: float | None = None
    first_token_at: float | None = None
    _sum_logprob: float = 0.0

    def __post_init__(self) -> None:
        self._random = random.Random(self.sampling.seed)
        self.max_tokens = self.sampling.max_new_tokens

    def draw(self) -> float:
        """The next random number, uniform in [0, 1)."""
        return self._random.random()

    def append(self, token: int, logprob: float, now: float) -> str:
        """Takes the next token and returns the text that became certain by it."""
        self.tokens.append(token)
        self._sum_logprob += logprob
        self.first_token_at = self.first_token_at or now
        text = "" if self.text is None or token in self.stop_tokens else self.text.push(token)
        return text + (self.text.finish() if self.text is not None and self.finish_reason else "")

    @property
    def length(self) -> int:
        """Tokens of prompt and answer so far."""
        return len(self.prompt) + len(self.tokens)

    @property
    def finish_reason(self) -> FinishReason | None:
        """Why the answer is over, or None while it is not."""
        if self.tokens and self.tokens[-1] in self.stop_tokens:
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
