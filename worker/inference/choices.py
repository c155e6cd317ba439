"""The answers to one question as far as they are written, and what of them the reply stream has."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from shared.messages import Choice, Quality, TokenChunk, TokenLogprob
from worker.inference.logprobs import logprobs_of
from worker.inference.sequence import FinishReason, Sequence

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(eq=False)
class WrittenChoice:
    """One answer: its text and log-probabilities so far, and how much of both has been sent."""

    index: int
    text: str = ""
    logprobs: list[TokenLogprob] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    num_sent: int = 0
    num_sent_logprobs: int = 0

    def take(
        self, sequence: Sequence, text: str, finish_reason: FinishReason | None, tokenizer: PreTrainedTokenizerBase
    ) -> None:
        """Notes what a step added."""
        self.text += text
        self.finish_reason = finish_reason
        if sequence.sampling.logprobs is not None:
            self.logprobs += logprobs_of(sequence, tokenizer, begin=len(self.logprobs))

    def unsent(self, question_id: str) -> TokenChunk | None:
        """What has come since the last chunk that was sent."""
        if len(self.text) == self.num_sent and len(self.logprobs) == self.num_sent_logprobs:
            return None
        return TokenChunk(
            question_id=question_id,
            text=self.text[self.num_sent :],
            offset=self.num_sent,
            choice=self.index,
            logprobs=tuple(self.logprobs[self.num_sent_logprobs :]),
            logprobs_offset=self.num_sent_logprobs,
        )

    def mark_sent(self, chunk: TokenChunk) -> None:
        """Notes that the reply stream has `chunk`."""
        self.num_sent = chunk.offset + len(chunk.text)
        self.num_sent_logprobs = chunk.logprobs_offset + len(chunk.logprobs)

    def message(self, sequence: Sequence) -> Choice:
        """The choice at its end."""
        return Choice(
            index=self.index,
            text=self.text,
            finish_reason=self.finish_reason or "stop",
            completion_tokens=len(sequence.tokens),
            quality=Quality(mean_logprob=sequence.mean_logprob, repetition=sequence.repetition),
            logprobs=None if sequence.sampling.logprobs is None else tuple(self.logprobs),
        )
