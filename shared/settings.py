"""The settings: read from the environment here and nowhere else."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import AliasChoices, Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from shared.promotion_policy import PromotionMode


class Settings(BaseSettings):
    """Every setting, its default and its unit. `FINETUNED_<NAME>` sets it; `.env` is read too."""

    model_config = SettingsConfigDict(
        env_prefix="FINETUNED_", env_file=".env", extra="ignore", populate_by_name=True, frozen=True
    )

    # Where things are kept
    data_dir: Path = Field(Path(".data"), description="Folder of the database, documents, datasets and adapters.")
    database_url: str | None = Field(
        None,
        validation_alias=AliasChoices("DATABASE_URL", "FINETUNED_DATABASE_URL"),
        description="SQLAlchemy URL (postgresql://…); default: SQLite in the data folder.",
    )
    redis_url: str | None = Field(
        None,
        validation_alias=AliasChoices("REDIS_URL", "FINETUNED_REDIS_URL"),
        description="redis:// or unix:// URL; default: the embedded server's socket in the data folder.",
    )
    model_cache_dir: Path | None = Field(None, description="Cache of base models; default: Hugging Face's own.")
    min_free_bytes: int = Field(
        512 * 1024**2, ge=0, description="Disk space that uploads and jobs leave free in the data folder."
    )
    leftover_hours: float = Field(24.0, ge=0, description="Files that nothing knows are left alone for so long.")
    checkpoint_retention_days: float = Field(
        7.0, ge=0, description="How long the checkpoints of failed and cancelled trainings are kept."
    )
    keep_versions: int = Field(
        0, ge=0, description="Newest versions of an adapter that are kept beside the live one; 0: all."
    )

    # What it tells
    log_format: Literal["text", "json"] = Field("text", description="Lines for people, or one JSON object a line.")
    metrics_port: int = Field(
        0, ge=0, le=65535, description="Port on which each worker shows its figures to Prometheus; 0: on none."
    )
    metrics_host: str = Field("127.0.0.1", description="Address of that port.")
    otlp_endpoint: str | None = Field(
        None,
        validation_alias=AliasChoices("OTEL_EXPORTER_OTLP_ENDPOINT", "FINETUNED_OTLP_ENDPOINT"),
        description="URL of an OpenTelemetry collector (OTLP over HTTP) that traces are sent to; default: none are.",
    )

    # Base models
    base_model: str = Field("microsoft/DialoGPT-medium", description="The model that is used when none is named.")
    allowed_models: tuple[str, ...] = Field(
        (
            "demo",
            "microsoft/DialoGPT-*",
            "meta-llama/Llama-2-*",
            "google/flan-t5-*",
        ),
        description="Names, local paths or patterns (* and ?) of the base models that may be used, as JSON.",
    )

    # The HTTP service
    host: str = Field("127.0.0.1", description="Address the API listens on.")
    port: int = Field(8000, description="Port the API listens on.")
    allow_keyless: bool = Field(
        False, description="Whether the API serves other machines before there is a key: its port is guarded otherwise."
    )
    allowed_hosts: tuple[str, ...] = Field(
        ("localhost", "127.0.0.1", "::1"),
        description="Host names by which browsers and proxies may reach the API, as JSON; * allows any.",
    )
    max_upload_bytes: int = Field(64 * 1024 * 1024, description="Largest document.")
    max_import_bytes: int = Field(2 * 1024**3, description="Largest adapter to import, packed and unpacked.")
    max_file_bytes: int = Field(512 * 1024 * 1024, description="Largest file that is uploaded in parts.")
    max_files_per_upload: int = Field(100, description="Most files in one POST /documents.")
    max_queued_questions: int = Field(256, description="Waiting questions beyond which new ones get 429.")
    requests_per_minute: int = Field(0, ge=0, description="Requests a minute by API key, else by address; 0: no limit.")
    upload_bytes_per_day: int = Field(
        0, ge=0, description="Bytes that an API key may upload in 24 hours, all together without keys; 0: no limit."
    )
    max_queued_jobs: int = Field(
        1000, ge=0, description="Most queued jobs of an API key, or of all without keys; more get 429; 0: no limit."
    )
    answer_timeout_seconds: float = Field(120.0, description="A question without an answer by then ends in 504.")
    webhook_allow_private: bool = Field(
        False, description="Whether webhooks may be sent to private, loopback and link-local addresses."
    )

    # Jobs
    lease_seconds: float = Field(60.0, description="A job whose worker was silent for so long is taken over.")
    heartbeat_seconds: float = Field(1.0, description="How often a worker renews its lease and looks for cancel.")
    reconcile_seconds: float = Field(1.0, description="How often a worker looks for lost messages and expired leases.")
    stall_timeout_seconds: float = Field(1800.0, description="A job without progress for so long is stopped.")
    stop_timeout_seconds: float = Field(60.0, description="How long a trainer may take to write its last checkpoint.")
    max_crashes: int = Field(3, description="A job whose worker died so often is failed.")
    promotion: PromotionMode = Field(
        "if_better",
        description="Which new versions go live where their adapter has no policy: manual: none, always: all, "
        "if_better: those whose held-out loss is lower than the base model's and the live version's.",
    )

    # Evaluations
    evaluate_after_training: bool = Field(
        True, description="Whether each new version is compared, by itself, with the base model and the live one."
    )

    # Exports
    gguf_converter: Path | None = Field(
        None, description="llama.cpp's convert_hf_to_gguf.py; default: the one on the worker's PATH."
    )

    # Documents to text
    extraction_timeout_seconds: float = Field(10.0, description="Most time to extract one document's text.")
    extraction_memory_bytes: int = Field(768 * 1024 * 1024, description="Most memory to extract one document.")

    # Inference
    inference_engine: Literal["auto", "builtin", "vllm"] = Field(
        "auto", description="Auto: vLLM where it is installed, there is a GPU and it knows the model; else our own."
    )
    max_batch_size: int = Field(16, description="Most sequences generated at once.")
    max_loaded_models: int = Field(2, description="Base models an inference worker keeps loaded.")
    max_loaded_adapters: int = Field(16, description="Adapters kept loaded beside one base model.")
    inference_weights: Literal["auto", "float32", "bfloat16", "int8"] = Field(
        "auto",
        description="Format of the base model's weights: auto is exact on CPUs, half precision on GPUs.",
    )
    fallback: bool = Field(True, description="Whether the base model answers when the adapter cannot.")
    store_queries: bool = Field(False, description="Whether the texts of queries and answers are kept in the database.")
    answer_retention_days: float = Field(30.0, ge=0, description="How long an answer's figures and texts are kept.")

    # Questions to the documents
    openai_base_url: str | None = Field(
        None,
        validation_alias=AliasChoices("OPENAI_BASE_URL", "FINETUNED_OPENAI_BASE_URL"),
        description="OpenAI-compatible endpoint, with /v1, of the models below; default: none is asked.",
    )
    openai_api_key: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("OPENAI_API_KEY", "FINETUNED_OPENAI_API_KEY"),
        description="The endpoint's key.",
    )
    rag_model: str | None = Field(
        None, description="The endpoint's model that answers from documents; default: the base model, on our workers."
    )
    judge_model: str | None = Field(
        None, description="The endpoint's model that judges answers in evaluations; default: none does."
    )
    question_model: str | None = Field(
        None,
        description="The endpoint's model that writes questions about documents; default: they are made by rule.",
    )
    embedding_model: str | None = Field(
        None, description="The endpoint's model for search by meaning; default: search by words alone."
    )
    retrieval_url: str | None = Field(
        None, description="Where the index lies: a folder or s3://…; default: in the data folder."
    )
    retrieval_threshold: float = Field(
        0.5, ge=0, le=1, description="Relevance from which backend auto answers from the documents."
    )

    @property
    def resolved_retrieval_url(self) -> str:
        """Where the index of the documents lies."""
        return self.retrieval_url or str(self.data_dir.resolve() / "retrieval")

    @property
    def resolved_database_url(self) -> str:
        """The database's SQLAlchemy URL, with the driver named."""
        if self.database_url is None:
            return f"sqlite:///{self.data_dir.resolve() / 'finetuned.db'}"
        return self.database_url.replace("postgresql://", "postgresql+pg8000://", 1)

    @property
    def resolved_redis_url(self) -> str:
        """The broker's URL: the one set, else the embedded server's socket."""
        return self.redis_url or f"unix://{self.redis_socket}"

    @property
    def redis_socket(self) -> Path:
        """Where the embedded Redis listens: inside the data folder, on no port."""
        return self.data_dir.resolve() / "redis" / "redis.sock"


@lru_cache
def get_settings() -> Settings:
    """The process's settings, read once."""
    return Settings()
