"""Prompts that are continued as they stand, and conversations that a chat template refuses."""

from __future__ import annotations

import pytest
from tokenizers.processors import TemplateProcessing

from shared.errors import InvalidRequest
from shared.messages import Question, Sampling, Turn
from tests.inference.tiny import make_sentencepiece_tokenizer, make_tokenizer
from tests.tiny_models import EOS
from worker.base_models.formats import PromptFormat, encode_raw
from worker.inference.preparation import prompt_of
from worker.inference.text import TextStream


def continued(tokenizer: object, prompt: list[int], tokens: list[int], *stop: str) -> str:
    stream = TextStream(tokenizer, stop, prompt)  # type: ignore[arg-type]
    return "".join([*(stream.push(token) for token in tokens), stream.finish()])


def test_a_continuation_keeps_the_white_space_around_it() -> None:
    tokenizer = make_tokenizer()
    prompt, tokens = (tokenizer(text, add_special_tokens=False).input_ids for text in ("One é", " two \n"))
    assert continued(tokenizer, prompt, tokens) == " two \n"
    assert continued(tokenizer, prompt, tokens, "o ") == " tw"


def test_a_sentencepiece_continuation_keeps_the_space_before_its_first_word() -> None:
    tokenizer = make_sentencepiece_tokenizer()
    words = tokenizer.convert_tokens_to_ids(["▁ab", "▁de", "gh"])
    assert continued(tokenizer, words[:1], words[1:]) == " degh"
    assert continued(tokenizer, [tokenizer.bos_token_id], words[1:]) == "degh"


def test_a_raw_prompt_has_special_tokens_where_it_names_them() -> None:
    tokenizer = make_tokenizer()
    a = tokenizer("a").input_ids
    assert encode_raw(PromptFormat.DIALOGUE, tokenizer, "a<|endoftext|>") == [*a, EOS]
    assert encode_raw(PromptFormat.TEXT2TEXT, tokenizer, "a") == [*a, EOS]
    assert encode_raw(PromptFormat.TEXT, tokenizer, "") == [EOS]


def test_a_raw_prompt_begins_with_the_start_token_once() -> None:
    tokenizer = make_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", EOS)]
    )
    plain = tokenizer("a", add_special_tokens=False).input_ids
    for prompt in ("a", "<|endoftext|>a"):
        assert encode_raw(PromptFormat.TEXT, tokenizer, prompt) == [EOS, *plain]


def test_a_conversation_that_the_chat_template_refuses_is_the_clients_fault() -> None:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('user and assistant in turn') }}"
    question = Question(
        id="answer-1", project_id="default", reply_to="replies", turns=(Turn(role="user", content="Hi"),),
        sampling=Sampling(), model="demo", deadline=1.0, asked_at=0.0,
    )  # fmt: skip
    with pytest.raises(InvalidRequest, match="refuses this conversation: user and assistant in turn") as caught:
        prompt_of(question, PromptFormat.CHAT, tokenizer)
    assert caught.value.param == "messages"
