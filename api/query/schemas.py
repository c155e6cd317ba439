"""The main system's question and its answer as clients see them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from api.retrieval.schemas import Source
from shared.messages import Sampling, StopString, Usage
from shared.setup_parameters import ADAPTER_NAME

Backend = Literal["rag", "fine-tuned"]


class MainQuestion(BaseModel):
    """A question to the documents (`rag`), to the adapter's live version (`fine-tuned`), or to whom it fits (`auto`).

    `adapter` names who is asked for `fine-tuned`; without it, the adapter that was published last. `model` names who
    writes the answer of `rag`: a model of the endpoint, or where none is set any model of this installation.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, protected_namespaces=())

    query: str = Field(min_length=1, max_length=200_000)
    backend: Literal["rag", "fine-tuned", "auto"] = "auto"
    adapter: str | None = Field(None, pattern=ADAPTER_NAME)
    model: str | None = Field(None, min_length=1, max_length=512)
    top_k: int = Field(5, ge=1, le=20, description="Most chunks that the answer is written from.")
    max_new_tokens: int = Field(128, ge=1, le=8192)
    temperature: float = Field(0.0, ge=0.0, le=2.0, description="0 always takes the likeliest token.")
    top_p: float = Field(1.0, gt=0.0, le=1.0)
    seed: int | None = Field(None, ge=0, le=2**63 - 1)
    stop: tuple[StopString, ...] = Field((), max_length=4, description="The answer ends before any of these strings.")

    @field_validator("stop", mode="before")
    @classmethod
    def _one_or_several(cls, stop: object) -> object:
        return (stop,) if isinstance(stop, str) else stop or ()

    @model_validator(mode="after")
    def _suits_backend(self) -> MainQuestion:
        if self.backend == "rag" and self.adapter is not None:
            raise ValueError("adapter is for the backends fine-tuned and auto; model names who writes from documents")
        if self.backend == "fine-tuned" and self.model is not None:
            raise ValueError("model is for the backends rag and auto; adapter names who is asked")
        return self

    def sampling(self) -> Sampling:
        return Sampling.model_validate(self.model_dump(include=set(Sampling.model_fields) - {"top_k"}))


class MainAnswer(BaseModel):
    """An answer, and who gave it. `sources` are what it was written from; empty for `fine-tuned`.

    `fallback` is true where another than the one that was to answer did: the other backend, or the base model in the
    adapter's place; `fallback_reason` says why. `model` null: the documents hold nothing about the question, and no
    model was asked. `usage` null: the endpoint did not say.
    """

    model_config = ConfigDict(protected_namespaces=())

    id: str
    object: Literal["answer"] = "answer"
    answer: str
    backend: Backend
    sources: list[Source]
    model: str | None = None
    adapter: str | None = None
    version: int | None = None
    fallback: bool = False
    fallback_reason: str | None = None
    finish_reason: str | None = None
    usage: Usage | None = None
    latency_ms: float
