from __future__ import annotations

import pytest

from shared.errors import DatasetError
from tests.data import tokenizers_of
from tests.data.documents import LEAVE, SICK, pairs_document, text_document
from worker.base_models.formats import MASKED, Example, Message, PromptFormat
from worker.data.examples import DatasetOptions, ExampleEncoder, SourceDocument
from worker.data.texts import ExtractedText

GPT2 = tokenizers_of.gpt2_tokenizer()
T5 = tokenizers_of.t5_tokenizer()
CHAT = tokenizers_of.chat_tokenizer()
PAIR = pairs_document("qa", ("What is the Heron?", "a tide gauge"))


def examples_of(document: SourceDocument, style: PromptFormat, max_length: int = 512) -> list[Example]:
    encoder = ExampleEncoder(_tokenizer(style), style, DatasetOptions(max_length=max_length))
    return [item.example for item in encoder.items_of(document, overlap=0)]


def _tokenizer(style: PromptFormat) -> tokenizers_of.PreTrainedTokenizerBase:
    return {PromptFormat.TEXT2TEXT: T5, PromptFormat.CHAT: CHAT}.get(style, GPT2)


def learned(example: Example, style: PromptFormat) -> str:
    return str(_tokenizer(style).decode([label for label in example.labels if label != MASKED]))


@pytest.mark.parametrize("style", [PromptFormat.TEXT, PromptFormat.DIALOGUE])
def test_running_text_is_learned_whole_with_its_heading_and_its_end(style: PromptFormat) -> None:
    (example,) = examples_of(text_document("a", LEAVE.strip(), heading="Leave"), style)
    assert example.labels == example.input_ids
    between = "<|endoftext|>" if style is PromptFormat.DIALOGUE else "\n\n"
    assert learned(example, style) == f"Leave 0{between}{LEAVE.strip()}<|endoftext|>"


@pytest.mark.parametrize("style", [PromptFormat.TEXT, PromptFormat.DIALOGUE, PromptFormat.CHAT])
def test_of_a_question_and_answer_only_the_answer_and_its_end_are_learned(style: PromptFormat) -> None:
    (example,) = examples_of(PAIR, style)
    assert learned(example, style).strip() == "a tide gauge<|endoftext|>"
    assert example.labels[-1] == _tokenizer(style).eos_token_id == _tokenizer(style).pad_token_id
    assert len(example.labels) == len(example.input_ids)


def test_text2text_reads_the_question_and_writes_the_answer() -> None:
    (example,) = examples_of(PAIR, PromptFormat.TEXT2TEXT)
    assert T5.decode(example.labels) == "a tide gauge</s>"
    assert example.input_ids[-1] == T5.eos_token_id


def test_text2text_learns_each_answer_of_a_conversation_and_the_others_learn_them_in_one() -> None:
    turns: tuple[Message, ...] = (
        {"role": "user", "content": "Who?"},
        {"role": "assistant", "content": "leave", "weight": 0},
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "the office"},
        {"role": "user", "content": "When?"},
        {"role": "assistant", "content": "in a year"},
        {"role": "user", "content": "Thanks."},
    )
    document = SourceDocument("file-a", "sha-a", "a", ExtractedText(conversations=(turns,)))
    assert [T5.decode(one.labels) for one in examples_of(document, PromptFormat.TEXT2TEXT)] == [
        "the office</s>",
        "in a year</s>",
    ]
    (example,) = examples_of(document, PromptFormat.DIALOGUE)
    assert learned(example, PromptFormat.DIALOGUE) == "the office<|endoftext|>in a year<|endoftext|>"
    assert "Thanks" not in GPT2.decode(example.input_ids)


@pytest.mark.parametrize("style", list(PromptFormat))
def test_chunks_of_running_text_are_never_truncated(style: PromptFormat) -> None:
    document = text_document("a", (LEAVE + SICK) * 10, heading="A long heading about leave > Sick leave of employees")
    examples = examples_of(document, style, max_length=96)
    assert len(examples) > 5
    assert not any(example.is_truncated for example in examples)
    assert all(len(example.input_ids) <= 96 for example in examples)
    if style is PromptFormat.TEXT:
        assert max(len(example.input_ids) for example in examples) > 60  # and the room is used


def test_a_heading_that_leaves_no_room_is_left_out() -> None:
    document = text_document("a", LEAVE, heading="Very long heading " * 20)
    examples = examples_of(document, PromptFormat.TEXT, max_length=32)
    assert not any(example.is_truncated for example in examples)
    assert "Very" not in GPT2.decode(examples[0].input_ids)


def test_an_instruct_model_is_asked_for_the_passage_by_heading_or_title() -> None:
    with_heading = examples_of(text_document("a", LEAVE, heading="Leave"), PromptFormat.CHAT)[0]
    without = examples_of(text_document("staff handbook", LEAVE), PromptFormat.CHAT)[0]
    assert "about: Leave 0<|assistant|>" in CHAT.decode(with_heading.input_ids)
    assert "about: staff handbook<|assistant|>" in CHAT.decode(without.input_ids)
    assert learned(without, PromptFormat.CHAT) == f"{LEAVE.strip()}<|endoftext|>"


def test_a_template_that_refuses_a_conversation_names_it() -> None:
    tokenizer = tokenizers_of.chat_tokenizer(tokenizers_of.REFUSING_TEMPLATE)
    encoder = ExampleEncoder(tokenizer, PromptFormat.CHAT, DatasetOptions())
    with pytest.raises(DatasetError, match=r"conversation 1 of 'qa'.*must alternate"):
        encoder.items_of(PAIR, overlap=0)
