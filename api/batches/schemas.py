"""Batches as clients see them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from shared.batch_parameters import BatchOptions


class BatchRequest(BatchOptions):
    """The document whose lines are the questions, and what holds for the lines that say nothing else.

    A line is what POST /fine-tuning/query takes, or a conversation: `{"query": …}` or `{"messages": [{"role": …,
    "content": …}, …]}`, with `custom_id`, `adapter`, `version`, `model` and the sampling options as it pleases.
    Without `adapter` and `model`, the adapter that was published last answers; without `version`, the version that is
    live now answers all lines that name no adapter themselves.
    """

    document_id: str = Field(pattern=r"^[A-Za-z0-9._-]{1,64}$", description="A jsonl document of POST /documents.")


class BatchAnswer(BaseModel):
    """The job that was created; its answers come to `output`."""

    job_id: str
    status: str
    output: str


DOWNLOAD: dict[int | str, dict[str, Any]] = {
    200: {
        "description": (
            "One JSON line an answer, in the order in which they came: `line` (counted from 1), `custom_id`, "
            "`answer`, `model`, `adapter`, `version`, `fallback`, `finish_reason`, `usage`, `error` "
            "(`{code, detail}` with `param` where it is known, else null), and "
            "for a batch of /v1/batches the `body` of the response."
        ),
        "content": {"application/jsonl": {"schema": {"type": "string", "format": "binary"}}},
    }
}
