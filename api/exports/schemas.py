"""Exports as clients see them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, Field

from shared.registry_parameters import ExportFormat, GgufType
from shared.setup_parameters import ADAPTER_NAME


class ExportRequest(BaseModel):
    """Which version, and in which format: `peft` (the adapter as PEFT loads it), `merged` (a whole model with the
    adapter in its weights), `gguf` (that, as llama.cpp loads it), or `hub` (the adapter, into a repository)."""

    model_config = {"extra": "forbid"}

    adapter: str = Field(pattern=ADAPTER_NAME)
    version: int | None = Field(None, ge=1, le=2**31 - 1, description="Left out: the live one.")
    format: ExportFormat
    quantization: GgufType | None = Field(None, description="Type of a gguf file's weights; left out: f16.")
    repository: str | None = Field(None, max_length=193, description="The hub's repository: owner/name.")


class ExportAnswer(BaseModel):
    """The job that was created; its file, if it makes one, comes to `content`."""

    job_id: str
    status: str
    content: str | None


class DeletedExport(BaseModel):
    """The export's file is gone; its job stays."""

    object: Literal["export"] = "export"
    id: str
    deleted: Literal[True] = True


_BYTES = {"schema": {"type": "string", "format": "binary"}}
DOWNLOAD: dict[int | str, dict[str, Any]] = {200: {"content": {"application/octet-stream": _BYTES}}}
