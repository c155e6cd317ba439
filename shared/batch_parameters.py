"""What a batch job is asked to do: the parameters in its row, and the lines of its input."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shared.errors import InvalidRequest
from shared.messages import Sampling, Turn
from shared.setup_parameters import ADAPTER_NAME

BatchEndpoint = Literal["/v1/chat/completions", "/v1/completions"]


class BatchOptions(Sampling):
    """Who answers, and how: for the whole batch, or for one line. Only what was set counts.

    `model` asks a base model itself; `version` None is the version that is live when the line is answered.
    """

    adapter: str | None = Field(None, pattern=ADAPTER_NAME)
    version: int | None = Field(None, ge=1, le=2**31 - 1)
    model: str | None = Field(None, min_length=1, max_length=512)
    fallback: bool | None = Field(None, description="Whether the base model may answer instead of the adapter.")

    @model_validator(mode="after")
    def _one_addressee(self) -> BatchOptions:
        if self.model is not None and (self.adapter or self.version):
            raise ValueError("model asks a base model itself; give either model, or adapter and version")
        return self

    def options(self) -> dict[str, Any]:
        """The options that were set, by name."""
        return self.model_dump(mode="json", include=set(BatchOptions.model_fields), exclude_unset=True)


class BatchParameters(BatchOptions):
    """A batch job: the jsonl document to answer, and the options of its lines that set none themselves."""

    document_id: str


class OpenAIBatchOptions(BaseModel):
    """What the OpenAI dialect asks of a batch. Times are in Unix seconds; `cancelling_at` says when its end was asked
    for."""

    endpoint: BatchEndpoint
    completion_window: str = "24h"
    metadata: dict[str, str] | None = None
    output_expires_after_seconds: int | None = None
    expires_at: int
    cancelling_at: int | None = None


class OpenAIBatchParameters(BaseModel):
    """A batch job of the OpenAI dialect: the file of requests, and what holds for all of them."""

    document_id: str
    openai: OpenAIBatchOptions


class BatchLine(BatchOptions):
    """One line of the input: a `query`, or a conversation in `messages`. `custom_id` comes back with the answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    query: str | None = Field(None, min_length=1, max_length=200_000)
    messages: tuple[Turn, ...] | None = Field(None, min_length=1)
    custom_id: str | None = Field(None, max_length=512)

    @model_validator(mode="after")
    def _one_question(self) -> BatchLine:
        if (self.query is None) == (self.messages is None):
            raise ValueError("give either query, or messages")
        return self

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation that the answer continues."""
        return self.messages or (Turn(role="user", content=self.query or ""),)

    def options_over(self, defaults: BatchOptions) -> BatchOptions:
        """This line's options, and the batch's where it sets none; a line's addressee takes the batch's place.
        Raises `InvalidRequest` if they do not go together."""
        inherited, own = defaults.options(), self.options()
        if own.keys() & {"adapter", "model"}:
            inherited = {name: value for name, value in inherited.items() if name not in _ADDRESSEE}
        try:
            return BatchOptions.model_validate({**inherited, **own})
        except ValidationError as error:
            raise InvalidRequest("version needs an adapter; name it, or leave version out.") from error


_ADDRESSEE = ("adapter", "version", "model")
