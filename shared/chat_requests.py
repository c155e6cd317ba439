"""Requests of the OpenAI dialect for answers: chat completions, and completions of raw text."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from shared.messages import Sampling, StopString, Text, Turn
from shared.storable import STORABLE

MOST_PROMPTS = 32  # in one request
_DEFAULT_CHAT_TOKENS = 1024
_DEFAULT_COMPLETION_TOKENS = 16  # OpenAI's
_MOST_TOKENS = 8192
_MOST_SEED = 2**63 - 1
_SMALLEST_TOP_P = 1e-9  # OpenAI takes 0, which leaves the likeliest token: so does this

ModelName = Annotated[str, Field(min_length=1, max_length=512, pattern=STORABLE)]
StopStrings = Annotated[
    tuple[StopString, ...],
    BeforeValidator(lambda stop: (stop,) if isinstance(stop, str) else stop, json_schema_input_type=str | list[str]),
]
MaxTokens = Annotated[int, Field(ge=1, le=_MOST_TOKENS)]
Ignored = Annotated[Any, Field(description="Accepted, and without effect.")]
Refused = Annotated[Any, Field(description="Refused unless it asks for nothing.")]


class _Body(BaseModel):
    """A field that is null counts as left out, as OpenAI has it; one that is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, values: Any) -> Any:
        return {name: one for name, one in values.items() if one is not None} if isinstance(values, dict) else values


class StreamOptions(_Body):
    """What a stream carries beside the answer. Chunks are not padded, so `include_obfuscation` has no effect."""

    include_usage: bool = False
    include_obfuscation: Ignored = None


class _Request(_Body):
    """What both kinds of request have. `fallback`, `top_k` and `repetition_penalty` are ours."""

    model: ModelName = Field(description="A base model, an adapter, `adapter@version` or an `ft:` name.")
    temperature: float = Field(1.0, ge=0.0, le=2.0)
    top_p: float = Field(1.0, ge=0.0, le=1.0)
    top_k: int = Field(0, ge=0, le=2**31 - 1)
    n: int = Field(1, ge=1, le=8)
    stop: StopStrings = Field((), max_length=4)
    seed: int | None = Field(None, ge=-(2**63), le=_MOST_SEED)
    frequency_penalty: float = Field(0.0, ge=-2.0, le=2.0)
    presence_penalty: float = Field(0.0, ge=-2.0, le=2.0)
    repetition_penalty: float = Field(1.0, gt=0.0, le=100.0)
    max_tokens: MaxTokens | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    fallback: bool = Field(False, description="Whether the base model may answer instead of the adapter.")
    logit_bias: Refused = None
    user: Ignored = None

    @field_validator("stream_options")
    @classmethod
    def _only_of_a_stream(cls, options: StreamOptions, info: ValidationInfo) -> StreamOptions:
        if info.data.get("stream") is False:
            raise ValueError("is only allowed when stream is true")
        return options

    @field_validator("logit_bias")
    @classmethod
    def _no_bias(cls, bias: Any) -> Any:
        return _nothing_asked(bias, "biases of single tokens are not supported; leave logit_bias out")

    @property
    def include_usage(self) -> bool:
        """Whether a stream ends with a chunk that counts the tokens."""
        return self.stream_options is not None and self.stream_options.include_usage

    def _sampling(self, max_new_tokens: int, logprobs: int | None) -> Sampling:
        return Sampling(
            max_new_tokens=max_new_tokens,
            temperature=self.temperature,
            top_p=max(self.top_p, _SMALLEST_TOP_P),
            top_k=self.top_k,
            repetition_penalty=self.repetition_penalty,
            frequency_penalty=self.frequency_penalty,
            presence_penalty=self.presence_penalty,
            stop=self.stop,
            seed=None if self.seed is None else self.seed & _MOST_SEED,
            logprobs=logprobs,
            n=self.n,
        )


class TextPart(_Body):
    """A part of a message's content. Only text is read."""

    type: Literal["text"]
    text: Text
    prompt_cache_breakpoint: Ignored = None


def _parts(content: Any) -> Any:
    """A message's content as its parts."""
    if isinstance(content, str):
        return ({"type": "text", "text": content},)
    if not isinstance(content, list | tuple):
        raise ValueError("must be a string, or a list of parts of the type text")
    if any(isinstance(part, dict) and part.get("type", "text") != "text" for part in content):
        raise ValueError("only parts of the type text are supported: no images, no audio, no files")
    return content


class ChatMessage(_Body):
    """One message, also as an earlier answer gave it. `developer` is another word for `system`."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[tuple[TextPart, ...], BeforeValidator(_parts, json_schema_input_type=str | list[TextPart])]
    name: Ignored = None
    refusal: Ignored = None
    annotations: Ignored = None
    audio: Refused = None
    tool_calls: Refused = None
    function_call: Refused = None

    @field_validator("role", mode="before")
    @classmethod
    def _no_tools(cls, role: Any) -> Any:
        if role in ("tool", "function"):
            raise ValueError("messages of tools and functions are not supported")
        return role

    @field_validator("audio", "tool_calls", "function_call")
    @classmethod
    def _neither_tools_nor_audio(cls, value: Any) -> Any:
        return _nothing_asked(value, "audio, tools and functions are not supported; leave this out")

    def turn(self) -> Turn:
        """The message for a worker, its parts joined as they stand."""
        role = "system" if self.role == "developer" else self.role
        return Turn(role=role, content="".join(part.text for part in self.content))


class ChatRequest(_Request):
    """The body of `/v1/chat/completions`."""

    messages: tuple[ChatMessage, ...] = Field(json_schema_extra={"minItems": 1})
    max_completion_tokens: MaxTokens | None = Field(None, description="The newer name of max_tokens.")
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)

    audio: Refused = None
    function_call: Refused = None
    functions: Refused = None
    modalities: Refused = None
    moderation: Refused = None
    response_format: Refused = None
    tool_choice: Refused = None
    tools: Refused = None
    web_search_options: Refused = None

    metadata: Ignored = None
    parallel_tool_calls: Ignored = None
    prediction: Ignored = None
    prompt_cache_key: Ignored = None
    prompt_cache_options: Ignored = None
    prompt_cache_retention: Ignored = None
    reasoning_effort: Ignored = None
    safety_identifier: Ignored = None
    service_tier: Ignored = None
    store: Ignored = None
    verbosity: Ignored = None

    @field_validator("messages")
    @classmethod
    def _not_empty(cls, messages: tuple[ChatMessage, ...]) -> tuple[ChatMessage, ...]:
        if not messages:
            raise ValueError("must hold at least one message")
        return messages

    @field_validator("max_completion_tokens")
    @classmethod
    def _one_limit(cls, limit: int, info: ValidationInfo) -> int:
        if info.data.get("max_tokens") not in (None, limit):
            raise ValueError("is another name of max_tokens; give one of the two")
        return limit

    @field_validator("top_logprobs")
    @classmethod
    def _only_with_logprobs(cls, num: int, info: ValidationInfo) -> int:
        if info.data.get("logprobs") is False:
            raise ValueError("is only allowed when logprobs is true")
        return num

    @field_validator("audio", "moderation", "web_search_options")
    @classmethod
    def _not_offered(cls, value: Any) -> Any:
        raise ValueError("is not supported; leave it out")

    @field_validator("tools", "functions", "tool_choice", "function_call")
    @classmethod
    def _no_tools(cls, value: Any) -> Any:
        return _nothing_asked(None if value == "none" else value, "tools and functions are not supported")

    @field_validator("modalities")
    @classmethod
    def _text_only(cls, modalities: Any) -> Any:
        return _nothing_asked(None if modalities == ["text"] else modalities, "answers are text; leave modalities out")

    @field_validator("response_format")
    @classmethod
    def _free_form(cls, wanted: Any) -> Any:
        return _nothing_asked(None if wanted == {"type": "text"} else wanted, "only the type text is supported")

    @property
    def turns(self) -> tuple[Turn, ...]:
        """The conversation that the answer continues."""
        return tuple(message.turn() for message in self.messages)

    def sampling(self) -> Sampling:
        limit = self.max_completion_tokens or self.max_tokens or _DEFAULT_CHAT_TOKENS
        return self._sampling(limit, (self.top_logprobs or 0) if self.logprobs else None)


def _prompts(prompt: Any) -> Any:
    """One prompt or several, as several."""
    if isinstance(prompt, str):
        return (prompt,)
    if not isinstance(prompt, list | tuple) or not all(isinstance(one, str) for one in prompt):
        raise ValueError("must be a string or a list of strings; lists of tokens are not supported")
    if not 0 < len(prompt) <= MOST_PROMPTS:
        raise ValueError(f"must be a string or a list of 1 to {MOST_PROMPTS} strings")
    return prompt


class CompletionRequest(_Request):
    """The body of `/v1/completions`: each prompt is continued as it stands, by `n` choices."""

    prompt: Annotated[tuple[Text, ...], BeforeValidator(_prompts, json_schema_input_type=str | list[str])]
    echo: bool = False
    logprobs: int | None = Field(None, ge=0, le=20, description="OpenAI's most is 5.")
    best_of: int | None = None
    suffix: Refused = None

    @field_validator("logprobs")
    @classmethod
    def _not_with_echo(cls, logprobs: int, info: ValidationInfo) -> int:
        if info.data.get("echo"):
            raise ValueError("the prompt's own are not known; leave out either echo or logprobs")
        return logprobs

    @field_validator("best_of")
    @classmethod
    def _as_many_as_n(cls, best_of: int, info: ValidationInfo) -> int:
        if best_of not in (1, info.data.get("n")):
            raise ValueError("choosing among more answers than n is not supported; leave best_of out")
        return best_of

    @field_validator("suffix")
    @classmethod
    def _no_insertion(cls, suffix: Any) -> Any:
        return _nothing_asked(suffix, "inserting text before a suffix is not supported; leave suffix out")

    @property
    def prompts(self) -> tuple[str, ...]:
        """The texts to continue; each is a question of its own."""
        return self.prompt

    def sampling(self) -> Sampling:
        return self._sampling(self.max_tokens or _DEFAULT_COMPLETION_TOKENS, self.logprobs)


def _nothing_asked(value: Any, sentence: str) -> Any:
    """None and what is empty ask for nothing; anything else is refused with the `sentence`."""
    if value or (value is not None and not isinstance(value, str | list | dict)):
        raise ValueError(sentence)
    return value
