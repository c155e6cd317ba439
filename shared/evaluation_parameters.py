"""What an evaluation job is asked to do: the parameters in its row."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.setup_parameters import ADAPTER_NAME

Purpose = Literal["asked", "training", "advice"]
Backend = Literal["model", "rag"]
QuestionMethod = Literal["cloze", "model"]
MOST_COLUMNS = 12


class Column(BaseModel):
    """Who answers: the base model, a version, or either of them from what is found in the documents (`rag`).

    `training_job_id` names the version that this training will have published by then.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    backend: Backend = "model"
    adapter: str | None = Field(None, pattern=ADAPTER_NAME)
    version: int | None = Field(None, ge=1, le=2**31 - 1)
    training_job_id: str | None = None

    @property
    def label(self) -> str:
        """`base`, `handbook@3`, `rag`, `rag + handbook@3`."""
        number = "" if self.version is None else f"@{self.version}"
        named = None if self.adapter is None else f"{self.adapter}{number}"
        if self.backend == "rag":
            return "rag" if named is None else f"rag + {named}"
        return named or "base"

    def names(self, adapter: str, version: int, training_job_id: str | None) -> bool:
        """Whether it asks this version, which was published by that training."""
        if self.training_job_id is not None:
            return self.training_job_id == training_job_id
        return (self.adapter, self.version) == (adapter, version)


class MakeQuestions(BaseModel):
    """Questions to make from documents: by rule (`cloze`: a sentence with a blank, and what stood there), or by the
    settings' `question_model`. None: by the model where one is set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    document_ids: tuple[str, ...] = Field(min_length=1)
    num_questions: int = Field(40, ge=1, le=1000)
    method: QuestionMethod | None = None


class EvaluationParameters(BaseModel):
    """Who is compared, and on what. The first column is what the others are compared with.

    Held-out examples are those of `setup_job_id`; question files are jsonl or csv documents. Losses are computed over
    `max_examples` of the former at most, answers to `max_questions` of all questions; both are chosen by `seed`.
    `general` measures what was forgotten. `judge` asks the judge of the settings, if one is set.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    base_model: str = Field(min_length=1, max_length=512)
    columns: tuple[Column, ...] = Field(min_length=1, max_length=MOST_COLUMNS)
    setup_job_id: str | None = None
    question_document_ids: tuple[str, ...] = ()
    make_questions: MakeQuestions | None = None
    max_examples: int = Field(1000, ge=1, le=100_000)
    max_questions: int = Field(200, ge=0, le=10_000)
    max_new_tokens: int = Field(128, ge=1, le=4096)
    top_k: int = Field(4, ge=1, le=50, description="Pieces of documents that rag answers from.")
    general: bool = True
    judge: bool = False
    seed: int = Field(0, ge=0, le=2**31 - 1)
    purpose: Purpose = "asked"

    @property
    def labels(self) -> tuple[str, ...]:
        """The columns' names, in their order."""
        return tuple(column.label for column in self.columns)

    @property
    def adapter(self) -> str | None:
        """The adapter that it is about: the last that a column names."""
        return next((column.adapter for column in reversed(self.columns) if column.adapter is not None), None)

    @model_validator(mode="after")
    def _each_column_once(self) -> EvaluationParameters:
        if len(set(self.columns)) < len(self.columns):
            raise ValueError("columns names one twice; name each once")
        return self
