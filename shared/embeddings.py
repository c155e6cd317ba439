"""Texts to vectors, by any OpenAI-compatible endpoint."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import httpx
from pydantic import BaseModel, Field, ValidationError

from shared.errors import EndpointUnavailable
from shared.settings import Settings

_MOST_TEXTS = 64  # in one request
_TIMEOUT = httpx.Timeout(60.0, connect=5.0)


class _Embedding(BaseModel):
    index: int
    embedding: Annotated[list[float], Field(min_length=1)]


class _Embeddings(BaseModel):
    data: list[_Embedding]


class Embedder:
    """Asks `POST {base_url}/embeddings`."""

    def __init__(self, base_url: str, model: str, api_key: str | None = None) -> None:
        self.model = model
        headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self._client = httpx.Client(base_url=base_url.rstrip("/") + "/", headers=headers, timeout=_TIMEOUT)

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """A vector a text, in their order. Raises `EndpointUnavailable`."""
        starts = range(0, len(texts), _MOST_TEXTS)
        return [vector for start in starts for vector in self._embed(texts[start : start + _MOST_TEXTS])]

    def _embed(self, texts: Sequence[str]) -> list[list[float]]:
        body = {"model": self.model, "input": list(texts), "encoding_format": "float"}
        try:
            answer = self._client.post("embeddings", json=body)
            answer.raise_for_status()
            found = sorted(_Embeddings.model_validate_json(answer.content).data, key=lambda one: one.index)
        except httpx.HTTPStatusError as error:
            raise EndpointUnavailable(
                f"The endpoint at OPENAI_BASE_URL answered a request for embeddings with {error.response.status_code}."
            ) from error
        except (httpx.HTTPError, ValidationError) as error:
            raise EndpointUnavailable() from error
        if len(found) != len(texts) or len({len(one.embedding) for one in found}) != 1:
            raise EndpointUnavailable("The endpoint at OPENAI_BASE_URL gave other embeddings than it was asked for.")
        return [one.embedding for one in found]


def embedder_of(settings: Settings) -> Embedder | None:
    """None where no embedding model is set, or no endpoint."""
    if not (settings.openai_base_url and settings.embedding_model):
        return None
    key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else None
    return Embedder(settings.openai_base_url, settings.embedding_model, key)
