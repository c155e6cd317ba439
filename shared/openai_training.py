"""What a job of the OpenAI dialect was asked for, as its training keeps it, and the name of what it makes."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict

from shared.model_names import FineTunedName
from shared.models import Job

PARAMETER = "openai"  # of a training job; native ones have none


class OpenAITraining(BaseModel):
    """What OpenAI's answers show again. `suffix` is the one in the model's name, `user_provided_suffix` the one that
    was sent; `hyperparameters` and `method` are as asked, with `auto` for what was left to us. Without metadata, the
    stored value has no key `metadata`, which is what a filter looks for."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    training_file: str
    validation_file: str | None
    suffix: str | None
    user_provided_suffix: str | None
    seed: int
    hyperparameters: dict[str, Any]
    method: dict[str, Any]
    integrations: tuple[dict[str, Any], ...]
    metadata: dict[str, str] | None = None

    def stored(self) -> dict[str, Any]:
        """As it lies in the job's parameters."""
        values = self.model_dump(mode="json")
        return values if self.metadata is not None else {name: values[name] for name in values if name != "metadata"}

    @classmethod
    def of(cls, job: Job) -> OpenAITraining | None:
        """None if the training was asked for natively."""
        stored = job.parameters.get(PARAMETER)
        return None if stored is None else cls.model_validate(stored)


def fine_tuned_name(job: Job, step: int | None = None) -> FineTunedName:
    """The name of what a training job makes, or of its checkpoint after `step` steps."""
    stored = job.parameters.get(PARAMETER)
    suffix = job.parameters["adapter"] if stored is None else stored["suffix"] or ""
    return FineTunedName.of_job(job.parameters["config"]["model_name"], job.project_id, suffix, job.id, step)
