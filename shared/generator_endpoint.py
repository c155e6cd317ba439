"""A generator behind any OpenAI-compatible endpoint."""

from __future__ import annotations

from typing import Any

import httpx
from pydantic import BaseModel, Field, ValidationError

from shared.errors import EndpointUnavailable, PromptTooLong
from shared.messages import Sampling, Usage
from shared.settings import Settings
from shared.tls import trusted_authorities

_CONNECT_SECONDS = 5.0
_TOO_LONG = "context_length"  # in the code of OpenAI's own error, and of those who speak its dialect


class _Message(BaseModel):
    content: str


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    model: str | None = None
    usage: _Usage | None = None


class Written(BaseModel):
    """What the endpoint wrote. `usage` is None where it does not say."""

    text: str
    model: str
    finish_reason: str | None
    usage: Usage | None


class GeneratorEndpoint:
    """Asks `POST {base_url}/chat/completions`."""

    def __init__(self, settings: Settings) -> None:
        key = settings.openai_api_key.get_secret_value() if settings.openai_api_key else None
        self._base_url = (settings.openai_base_url or "").rstrip("/") + "/"
        self._headers = {"Authorization": f"Bearer {key}"} if key else {}
        self._timeout = httpx.Timeout(settings.answer_timeout_seconds, connect=_CONNECT_SECONDS)

    async def write(self, model: str, prompt: str, sampling: Sampling) -> Written:
        """Raises `EndpointUnavailable`, and `PromptTooLong` if the endpoint says so."""
        try:
            async with httpx.AsyncClient(
                base_url=self._base_url, headers=self._headers, timeout=self._timeout, verify=trusted_authorities()
            ) as client:
                answer = await client.post("chat/completions", json=_body(model, prompt, sampling))
        except httpx.TimeoutException as error:
            raise EndpointUnavailable("The endpoint at OPENAI_BASE_URL did not answer in time; ask again.") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise EndpointUnavailable() from error
        if answer.status_code == 400 and _TOO_LONG in answer.text:
            raise PromptTooLong()
        if not answer.is_success:
            raise EndpointUnavailable(f"The endpoint at OPENAI_BASE_URL answered with {answer.status_code}.")
        return _written(model, answer.content)


def _body(model: str, prompt: str, sampling: Sampling) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model,
        "messages": [{"role": "user", "content": prompt}],
        "max_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
    if sampling.seed is not None:
        body["seed"] = sampling.seed
    return {**body, "stop": list(sampling.stop)} if sampling.stop else body


def _written(model: str, content: bytes) -> Written:
    try:
        completion = _Completion.model_validate_json(content)
    except ValidationError as error:
        raise EndpointUnavailable() from error
    first = completion.choices[0]
    return Written(
        text=first.message.content.strip(),
        model=completion.model or model,
        finish_reason=first.finish_reason,
        usage=None if completion.usage is None else Usage(**completion.usage.model_dump()),
    )
