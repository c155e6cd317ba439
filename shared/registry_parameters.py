"""What import and export jobs are asked to do: the parameters in their rows."""

from __future__ import annotations

from pathlib import PurePath
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from shared.errors import ImportRefused
from shared.setup_parameters import ADAPTER_NAME

ADAPTER_CONFIG, ADAPTER_WEIGHTS, MANIFEST = "adapter_config.json", "adapter_model.safetensors", "manifest.json"
TOKENIZER_FILES = frozenset(
    (
        "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
        "merges.txt", "vocab.txt", "spiece.model", "tokenizer.model", "chat_template.jinja",
    )
)  # fmt: skip
IMPORTED_FILES = frozenset((ADAPTER_CONFIG, ADAPTER_WEIGHTS, MANIFEST)) | TOKENIZER_FILES
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".npy", ".npz", ".joblib")
_ARCHIVES = {".zip": "zip", ".tar.gz": "tar.gz", ".tgz": "tar.gz"}

ExportFormat = Literal["peft", "merged", "gguf", "hub"]
GgufType = Literal["f32", "f16", "bf16", "q8_0", "auto"]


class ImportedFile(BaseModel):
    """One file as it was sent: an archive, or a file of the adapter."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    filename: str
    size_bytes: int
    sha256: str


class ImportParameters(BaseModel):
    """The files lie in the import's folder, named by their numbers. `model` None is the one that the adapter names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapter: str = Field(pattern=ADAPTER_NAME)
    model: str | None = Field(None, min_length=1, max_length=512)
    promote: bool = False
    files: tuple[ImportedFile, ...] = Field(min_length=1)


class ExportParameters(BaseModel):
    """Which version goes out, and how; `quantization` is llama.cpp's word for the type of a GGUF file's weights."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    adapter: str = Field(pattern=ADAPTER_NAME)
    version: int
    format: ExportFormat
    quantization: GgufType | None = None
    # ASCII, as on the hub: \w, ninety-five times, would be a program of all letters of Unicode at each start.
    repository: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}$")

    @model_validator(mode="after")
    def _fits_the_format(self) -> ExportParameters:
        if self.quantization is not None and self.format != "gguf":
            raise ValueError("quantization goes with format gguf only; leave it out")
        if (self.repository is not None) != (self.format == "hub"):
            raise ValueError("repository goes with format hub, which needs one: owner/name")
        return self


def archive_kind(filename: str) -> str | None:
    """`zip` or `tar.gz`, by the name's ending; None for any other file."""
    return next((kind for ending, kind in _ARCHIVES.items() if filename.lower().endswith(ending)), None)


def check_no_pickle(filename: str) -> None:
    """Raises `ImportRefused` for the formats that can run code when they are read."""
    if PurePath(filename.lower()).suffix in _PICKLES:
        raise ImportRefused(
            f"'{filename[:100]}' may be a pickle, which can run code when it is read, so it is never opened; save the "
            "weights as adapter_model.safetensors and leave it out.",
            param="files",
        )
