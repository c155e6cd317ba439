"""Preferences between two answers: read from lines, kept as pairs, and learned as the method says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from shared.document_kinds import kind_of
from shared.errors import CorruptDocument, NothingToLearn, TooFewExamples
from shared.training_method import DpoMethod, SupervisedMethod
from tests.data import documents as make
from tests.data import tokenizers_of
from tests.data.documents import LEAVE, pairs_document, preferences_document, text_document
from worker.base_models.formats import MASKED, Example, PreferencePair, PromptFormat
from worker.data.dataset import BuiltDataset, build, load, save
from worker.data.examples import DatasetOptions, ExampleEncoder, SourceDocument
from worker.data.extraction import ExtractionLimits, extract
from worker.data.extractors import extract_here
from worker.data.methods import lessons_of
from worker.data.texts import ExtractedText

GPT2 = tokenizers_of.gpt2_tokenizer()
T5 = tokenizers_of.t5_tokenizer()
USER = {"role": "user", "content": "Where is the office?"}
GOOD = {"role": "assistant", "content": "In Port Ellery."}
BAD = {"role": "assistant", "content": "No idea."}
OPENAI = {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]}
READ = {"prompt": [USER], "chosen": "In Port Ellery.", "rejected": "No idea."}


def read(path: Path) -> ExtractedText:
    return extract_here(kind_of(path.name), path)


def built(*documents: SourceDocument, style: PromptFormat = PromptFormat.TEXT, **options: Any) -> BuiltDataset:
    tokenizer = T5 if style is PromptFormat.TEXT2TEXT else GPT2
    return build(documents, tokenizer, style, DatasetOptions(**{"max_length": 96, **options}))


def preferences(name: str, number: int = 6) -> SourceDocument:
    answers = ((f"{name} {index}?", f"It is {index}.", f"Maybe {index}?") for index in range(number))
    return preferences_document(name, *answers)


def learnables(dataset: BuiltDataset) -> tuple[list[Any], list[Any]]:
    return [item.example for item in dataset.train], [item.example for item in dataset.validation]


# Lines


@pytest.mark.parametrize(
    "line",
    [
        OPENAI,
        {**OPENAI, "input": {"messages": [USER], "tools": [], "parallel_tool_calls": True}},
        {"prompt": USER["content"], "chosen": GOOD["content"], "rejected": BAD["content"]},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD], "score_chosen": 8.5},
        {"prompt": USER["content"], "chosen": [USER, GOOD], "rejected": [USER, BAD], "messages": [USER, GOOD]},
    ],
    ids=["openai", "openai with tools", "texts", "messages", "prompt within", "prompt twice"],
)
def test_a_preference_is_read_from_each_of_its_spellings(line: dict[str, Any], tmp_path: Path) -> None:
    text = read(make.write(tmp_path / "a.jsonl", json.dumps(line)))
    assert text.preferences == (READ,)
    assert not text.conversations
    assert not text.sections


def test_a_preference_after_several_turns_keeps_them_all_and_lines_of_other_kinds_may_stand_beside_it(
    tmp_path: Path,
) -> None:
    turns = [{"role": "system", "content": "Be brief."}, USER, BAD, {"role": "user", "content": "Really?"}]
    lines = [{**OPENAI, "input": {"messages": turns}}, {"question": "Who?", "answer": "Odile"}, {"text": "Some text."}]
    path = make.write(tmp_path / "a.jsonl", "\n".join(json.dumps(line) for line in lines))
    text = extract("jsonl", path, ExtractionLimits())  # in the child process, so through JSON
    assert [one["prompt"] for one in text.preferences] == [turns]
    assert (len(text.conversations), len(text.sections)) == (1, 1)
    assert ExtractedText.from_json(text.to_json()) == text


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ({**OPENAI, "preferred_output": []}, "'preferred_output' must be a list of at least one message"),
        ({**OPENAI, "non_preferred_output": [USER]}, "'non_preferred_output' must end in an assistant message"),
        ({**OPENAI, "non_preferred_output": [{"role": "assistant"}]}, r"non_preferred_output\[0\].content must be"),
        ({**OPENAI, "input": {}}, "'input' must be an object with 'messages'"),
        ({**OPENAI, "input": {"messages": [{"role": "robot"}]}}, r"input.messages\[0\].role must be one of"),
        ({**OPENAI, "input": {"messages": [USER, GOOD]}}, "must end before the assistant's turn"),
        ({**OPENAI, "preferred_output": [USER, {**USER, "content": "!"}, GOOD]}, "must answer the same prompt"),
        ({"input": {"messages": [USER]}, "preferred_output": [GOOD]}, "'non_preferred_output' is missing beside"),
        ({"prompt": "a", "rejected": "b"}, "'chosen' is missing beside 'rejected'"),
        ({"prompt": "a", "chosen": "", "rejected": "b"}, "'chosen' must be a text"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "'prompt' must be a text"),
        ({"chosen": "a", "rejected": "b"}, "'prompt' is missing beside 'chosen'"),
    ],
)
def test_a_wrong_preference_is_named_by_line_and_field(line: dict[str, Any], said: str, tmp_path: Path) -> None:
    path = make.write(tmp_path / "a.jsonl", f"{json.dumps(OPENAI)}\n{json.dumps(line)}")
    with pytest.raises(CorruptDocument, match=f"^Line 2: .*{said}"):
        read(path)


def test_a_lone_answer_beside_a_complete_line_is_no_preference(tmp_path: Path) -> None:
    lines = [{"question": "Who?", "answer": "Odile", "rejected": "Bo"}, {"text": "Some text.", "chosen": True}]
    text = read(make.write(tmp_path / "a.jsonl", "\n".join(json.dumps(line) for line in lines)))
    assert (len(text.preferences), len(text.conversations), len(text.sections)) == (0, 1, 1)


def test_csv_with_a_prompt_and_two_answers_holds_preferences(tmp_path: Path) -> None:
    text = read(
        make.write(tmp_path / "a.csv", "rejected,prompt,chosen\nNo idea.,Where is the office?,In Port Ellery.\n")
    )
    assert text.preferences == (READ,)
    with pytest.raises(CorruptDocument, match="Line 2: 'chosen' is empty"):
        read(make.write(tmp_path / "b.csv", "prompt,chosen,rejected\na,,b\n"))


# Pairs


@pytest.mark.parametrize("style", list(PromptFormat))
def test_both_sides_share_the_prompt_and_are_labelled_on_the_answer_only(style: PromptFormat) -> None:
    tokenizer = {PromptFormat.TEXT2TEXT: T5, PromptFormat.CHAT: tokenizers_of.chat_tokenizer()}.get(style, GPT2)
    earlier = [USER, {"role": "assistant", "content": "leave"}, {"role": "user", "content": "days of leave?"}]
    comparisons = [(earlier, f"the {word}", "a year") for word in ("team", "day", "year")]
    dataset = build([preferences_document("a", *comparisons)], tokenizer, style, DatasetOptions(validation_split=0))
    pairs, _ = learnables(dataset)
    for pair, word in zip(pairs, ("team", "day", "year"), strict=True):
        assert isinstance(pair, PreferencePair)
        answers = [
            tokenizer.decode([label for label in side.labels if label != MASKED], skip_special_tokens=True).strip()
            for side in (pair.chosen, pair.rejected)
        ]
        assert answers == [f"the {word}", "a year"]
        if style is PromptFormat.TEXT2TEXT:
            assert pair.chosen.input_ids == pair.rejected.input_ids
        else:
            start = next(place for place, label in enumerate(pair.chosen.labels) if label != MASKED)
            assert pair.chosen.input_ids[:start] == pair.rejected.input_ids[:start]
            assert pair.rejected.labels[start - 1] == MASKED != pair.rejected.labels[start]


def test_pairs_that_teach_nothing_are_dropped_and_counted() -> None:
    document = preferences_document(
        "a",
        ("Who?", "Odile", "Bo"),
        ("Where?", "Bern", "Rome"),
        ("When?", "Now", "Now"),  # equal
        ("How?", LEAVE * 5 + "so", LEAVE * 5 + "else"),  # equal once they are cut
        (LEAVE * 9, "Yes", "No"),  # cut before the answers
        ("Who?", "Odile", "Bo"),
        ("Why?", LEAVE * 5, "For fun"),
    )
    dataset = built(document, max_length=64, validation_split=0)
    counted = dataset.statistics
    assert (counted.chunks, counted.dropped_examples, counted.duplicate_examples) == (7, 3, 1)
    assert (counted.examples, counted.preference_pairs, counted.truncated_examples) == (3, 3, 1)
    one_sided = PreferencePair(Example([1, 2], [MASKED, 2]), Example([1, 2], [MASKED, MASKED]))
    assert not ExampleEncoder(GPT2, PromptFormat.TEXT, DatasetOptions()).is_learnable(one_sided)


@pytest.mark.parametrize("style", [PromptFormat.TEXT, PromptFormat.TEXT2TEXT])
def test_the_tokens_of_both_sides_are_counted(style: PromptFormat) -> None:
    dataset = built(preferences("a"), style=style)
    sides = [side for part in learnables(dataset) for pair in part for side in (pair.chosen, pair.rejected)]
    written = sum(len(side.labels) for side in sides) if style is PromptFormat.TEXT2TEXT else 0
    assert dataset.statistics.tokens == sum(len(side.input_ids) for side in sides) + written
    supervised = sum(side.num_supervised for side in sides)
    assert dataset.statistics.supervised_share == pytest.approx(supervised / dataset.statistics.tokens, abs=1e-4)


def test_pairs_and_other_examples_are_each_held_out_for_themselves() -> None:
    documents = [text_document(name, *(f"{name} {n}: {LEAVE}" for n in range(6))) for name in ("a", "b")]
    dataset = built(*documents, preferences("c"), preferences("d"))
    for part in learnables(dataset):
        assert {type(one) for one in part} == {Example, PreferencePair}
    assert {item.document_id for item in dataset.train}.isdisjoint(item.document_id for item in dataset.validation)


def test_a_single_document_of_preferences_is_cut() -> None:
    train, validation = learnables(built(preferences("a", 10), validation_split=0.2))
    assert (len(train), len(validation)) == (8, 2)


@pytest.mark.parametrize("documents", [[preferences("a")], [preferences("a"), pairs_document("b", ("Who?", "Odile"))]])
def test_saved_pairs_load_as_they_were(documents: list[SourceDocument], tmp_path: Path) -> None:
    dataset = built(*documents)
    save(dataset, tmp_path / "d", "demo", DatasetOptions())
    assert load(tmp_path / "d") == learnables(dataset)


def test_a_dataset_without_pairs_has_no_columns_for_them(tmp_path: Path) -> None:
    from datasets import load_from_disk

    save(built(pairs_document("a", *((f"{n}?", f"{n}.") for n in range(4)))), tmp_path / "d", "demo", DatasetOptions())
    assert load_from_disk(str(tmp_path / "d"))["train"].column_names == ["input_ids", "labels", "document_id", "chunk"]


# Methods


def test_dpo_learns_from_the_pairs_alone_and_says_what_it_leaves_out() -> None:
    parts = learnables(built(preferences("a"), preferences("b"), pairs_document("c", ("Who?", "Odile"), ("2?", "2."))))
    lessons = lessons_of(*parts, DpoMethod())
    assert {type(one) for one in (*lessons.train, *lessons.validation)} == {PreferencePair}
    assert len(lessons.train) + len(lessons.validation) == 12
    assert lessons.note == "DPO learns from the preference pairs alone: 2 other examples are left out"
    assert lessons_of(*learnables(built(preferences("a"))), DpoMethod()).note is None


def test_supervised_training_learns_each_preferred_answer_once_and_none_that_is_held_out() -> None:
    one, two = (PreferencePair(Example([1, 2], [MASKED, 2]), Example([1, n], [MASKED, n])) for n in (3, 4))
    other, plain = PreferencePair(Example([5, 6], [MASKED, 6]), one.rejected), Example([7, 8], [7, 8])
    lessons = lessons_of([one, two, other, plain], [PreferencePair(other.chosen, two.rejected)], SupervisedMethod())
    assert lessons.train == [one.chosen, plain]
    assert lessons.validation == [other.chosen]
    assert lessons.note is not None
    assert "preferred answers of the 4 preference pairs" in lessons.note


def test_supervised_training_of_plain_examples_is_as_it_was() -> None:
    rows = [Example([1, 2], [1, 2])] * 2
    assert lessons_of(rows, rows, SupervisedMethod()).train == rows


def test_dpo_without_preferences_is_refused_with_what_to_do() -> None:
    with pytest.raises(NothingToLearn, match="'prompt', 'chosen' and 'rejected'") as refused:
        lessons_of([Example([1, 2], [1, 2])] * 9, [], DpoMethod())
    assert refused.value.param == "method"
    with pytest.raises(TooFewExamples, match="1 preference pair"):
        lessons_of(learnables(built(preferences("a")))[0][:1], [], DpoMethod())
