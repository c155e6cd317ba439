"""What is learned is what will be said: prompts are prefixes, only answers are learned, ends are learned."""

from __future__ import annotations

import pytest
from transformers import PreTrainedTokenizerBase

from tests.tiny_models import EOS, make_tokenizer
from worker.base_models.formats import (
    MASKED,
    Example,
    Message,
    PromptFormat,
    encode_conversation,
    encode_prompt,
    encode_text,
    longest_example,
)

PLAIN = (
    "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)
# As Qwen3's: only the last answer shows its (empty) thoughts.
FORGETFUL = (
    "{% for m in messages %}<{{ m.role }}>{% if m.role == 'assistant' and loop.last %}<think></think>{% endif %}"
    "{{ m.content }}</>{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
TWO_TURNS = [
    Message(role="user", content="Q1"),
    Message(role="assistant", content="A1"),
    Message(role="user", content="Q2"),
    Message(role="assistant", content="A2"),
]


def tokenizer_with(template: str | None) -> PreTrainedTokenizerBase:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return tokenizer


def learned(tokenizer: PreTrainedTokenizerBase, example: Example) -> list[str]:
    """The learned stretches as text, the end token written as `$`."""
    text, parts = "", []
    for label in [*example.labels, MASKED]:
        if label != MASKED:
            text += "$" if label == EOS else str(tokenizer.decode([label]))
        elif text:
            parts.append(text)
            text = ""
    return parts


@pytest.mark.parametrize("style", [PromptFormat.TEXT, PromptFormat.DIALOGUE, PromptFormat.CHAT])
def test_only_answers_and_their_ends_are_learned_and_each_prompt_is_a_prefix(style: PromptFormat) -> None:
    tokenizer = tokenizer_with(PLAIN)
    (example,) = encode_conversation(style, tokenizer, TWO_TURNS, 512)
    answers = [part.strip().removesuffix("$").removesuffix("</>") for part in learned(tokenizer, example)]
    assert answers == ["A1", "A2"]
    assert example.labels[-1] == EOS
    for end in (1, 3):
        prompt = encode_prompt(style, tokenizer, TWO_TURNS[:end])
        assert example.input_ids[: len(prompt)] == prompt
        assert example.labels[len(prompt) - 1] == MASKED
        assert example.labels[len(prompt)] != MASKED


def test_a_template_that_renders_earlier_answers_differently_gives_an_example_for_each_answer() -> None:
    tokenizer = tokenizer_with(FORGETFUL)
    examples = encode_conversation(PromptFormat.CHAT, tokenizer, TWO_TURNS, 512)
    assert [learned(tokenizer, one) for one in examples] == [["<think></think>A1</>$"], ["<think></think>A2</>$"]]


def test_an_answer_of_weight_zero_is_context_and_a_conversation_of_such_teaches_nothing() -> None:
    silent = [Message(role="user", content="Q"), Message(role="assistant", content="A", weight=0)]
    for style in PromptFormat:
        examples = encode_conversation(style, tokenizer_with(PLAIN), silent, 512)
        assert all(label == MASKED for one in examples for label in one.labels)
        tokenizer = tokenizer_with(PLAIN)
        more = encode_conversation(style, tokenizer, [*silent, *TWO_TURNS], 512)
        assert "A1" in "".join(part for one in more for part in learned(tokenizer, one))


def test_a_conversation_that_an_assistant_opens_does_not_fail() -> None:
    opened = [Message(role="assistant", content="Hello"), *TWO_TURNS]
    for style in PromptFormat:
        assert encode_conversation(style, tokenizer_with(PLAIN), opened, 512)


@pytest.mark.parametrize("style", list(PromptFormat))
def test_the_name_of_a_special_token_in_a_user_s_text_is_not_that_token(style: PromptFormat) -> None:
    tokenizer = tokenizer_with(PLAIN)
    clean = encode_prompt(style, tokenizer, [Message(role="user", content="a b")])
    dirty = encode_prompt(style, tokenizer, [Message(role="user", content="a <|endoftext|>b")])
    assert dirty.count(EOS) == clean.count(EOS)


def test_every_part_of_a_passage_is_a_target_for_a_text2text_model() -> None:
    tokenizer = make_tokenizer()
    text = "The first sentence says one thing. The second sentence says another."
    examples = encode_text(PromptFormat.TEXT2TEXT, tokenizer, text, "things", 512)
    targets = " ".join(tokenizer.decode(one.labels, skip_special_tokens=True) for one in examples)
    assert targets == text


def test_examples_are_no_longer_than_the_model_has_positions() -> None:
    from transformers import GPT2Config, T5Config

    assert longest_example(2048, GPT2Config(n_positions=1024)) == 1024
    assert longest_example(256, GPT2Config(n_positions=1024)) == 256
    assert longest_example(2048, T5Config()) == 2048
