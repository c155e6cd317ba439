"""Advice as clients ask for it."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from api.fine_tuning.schemas import DocumentId, SetupRequest
from shared.evaluation_parameters import QuestionMethod
from shared.setup_parameters import ADAPTER_NAME

DEFAULT_QUESTIONS = 40


class AdviceRequest(SetupRequest):
    """What to learn from and how, as for a setup; and what is asked. Every field may be left out: questions are then
    made from all documents."""

    adapter: str = Field("advice", pattern=ADAPTER_NAME, description="The name under which the version is published.")
    train: Literal[True] = True
    question_document_id: DocumentId | None = Field(None, description="A file of questions with their answers.")
    num_questions: int | None = Field(
        None,
        ge=1,
        le=1000,
        description="To make from the documents; default: 40 where no file is named.",
    )
    question_method: QuestionMethod | None = Field(
        None,
        description="How they are made: cloze (sentences with a blank, by rule) or model (by the settings' "
        "question_model); default: by the model, if one is set.",
    )
    max_new_tokens: int = Field(64, ge=1, le=4096)

    @property
    def num_made(self) -> int | None:
        """How many questions are to be made; None: none."""
        if self.num_questions is None and self.question_document_id is None:
            return DEFAULT_QUESTIONS
        return self.num_questions


class AdviceAnswer(BaseModel):
    """The jobs, each of which waits for the one before; the evaluation ends with the recommendation."""

    setup_job_id: str
    training_job_id: str
    evaluation_job_id: str
    status: str
