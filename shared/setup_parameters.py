"""What a setup job is asked to do: the parameters in its row."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.training_config import FineTuningConfig

ADAPTER_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$"


class SetupParameters(BaseModel):
    """Which documents become a dataset, and how. Unknown keys are an error; instances never change.

    `document_ids` None takes all of the project's documents. `chunk_size` and `chunk_overlap` count tokens;
    `chunk_size` None fills `config.max_length`. `validation_split` is the share that is held out; where
    `validation_document_ids` are named, they are held out in its place, and nothing of them is trained on.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    document_ids: tuple[str, ...] | None = None
    validation_document_ids: tuple[str, ...] | None = None
    adapter: str = Field("default", pattern=ADAPTER_NAME)
    chunk_size: int | None = Field(None, ge=8, le=131_072)
    chunk_overlap: int = Field(0, ge=0)
    validation_split: float = Field(0.1, ge=0.0, le=0.5)
    config: FineTuningConfig = Field(default_factory=lambda: FineTuningConfig())

    @model_validator(mode="after")
    def _overlaps_less_than_half(self) -> SetupParameters:
        size = self.config.max_length if self.chunk_size is None else self.chunk_size
        if self.chunk_overlap * 2 > size:
            raise ValueError("chunk_overlap must be at most half of chunk_size")
        if self.document_ids is not None and not self.document_ids:
            raise ValueError("document_ids must name documents; leave it out to take all")
        holds_out = bool(self.validation_split) or self.validation_document_ids is not None
        if self.config.early_stopping_patience is not None and not holds_out:
            raise ValueError("early_stopping_patience needs held-out examples; raise validation_split or leave it out")
        return self

    @model_validator(mode="after")
    def _holds_out_what_it_does_not_learn(self) -> SetupParameters:
        held_out = self.validation_document_ids
        if held_out is not None and not held_out:
            raise ValueError("validation_document_ids must name documents; leave it out to hold out a share of all")
        if set(held_out or ()) & set(self.document_ids or ()):
            raise ValueError("validation_document_ids names a document that is to be trained on; name another")
        return self
