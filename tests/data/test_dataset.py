from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import DatasetError, NoDocuments, NothingToLearn, TooFewExamples
from shared.storage import seal
from tests.data import tokenizers_of
from tests.data.documents import LEAVE, SICK, pairs_document, text_document
from worker.base_models.formats import Message, PromptFormat
from worker.data.dataset import HELD_OUT, BuiltDataset, build, hash_of_tokenizer, held_out_questions, load, save
from worker.data.examples import DatasetOptions, SourceDocument
from worker.data.texts import ExtractedText

GPT2 = tokenizers_of.gpt2_tokenizer()
T5 = tokenizers_of.t5_tokenizer()


def built(
    *documents: SourceDocument, style: PromptFormat = PromptFormat.TEXT, options: DatasetOptions | None = None
) -> BuiltDataset:
    tokenizer = T5 if style is PromptFormat.TEXT2TEXT else GPT2
    return build(documents, tokenizer, style, options or DatasetOptions(max_length=96))


def prose(name: str, number: int = 6) -> SourceDocument:
    return text_document(name, *(f"{name} {index}: {LEAVE}" for index in range(number)), heading=name)


def pairs(name: str, number: int = 6) -> SourceDocument:
    return pairs_document(name, *((f"{name} {index}?", f"It is {index}.") for index in range(number)))


def held_out(dataset: BuiltDataset) -> set[str]:
    return {item.document_id for item in dataset.validation}


# The split


def test_whole_documents_are_held_out() -> None:
    dataset = built(*(prose(f"d{number}") for number in range(20)))
    assert len(held_out(dataset)) == 2  # a tenth
    assert not held_out(dataset) & {item.document_id for item in dataset.train}


def test_running_text_is_held_out_before_questions_with_answers() -> None:
    for seed in range(8):
        options = DatasetOptions(seed=seed, max_length=96)
        made = built(prose("a"), prose("b"), pairs("c"), pairs("d"), pairs("e"), options=options)
        assert held_out(made) < {"file-a", "file-b"}
    assert held_out(built(pairs("b"), pairs("c"))) <= {"file-b", "file-c"}


def test_the_only_running_text_is_cut_so_that_it_is_learned_too() -> None:
    sentences = [f"Sentence number {number} tells something of its own." for number in range(60)]
    options = DatasetOptions(max_length=96, chunk_overlap=40, validation_split=0.2)
    dataset = built(text_document("a", " ".join(sentences)), pairs("b"), options=options)
    assert held_out(dataset) == {"file-a"}
    assert {item.document_id for item in dataset.train} == {"file-a", "file-b"}
    train, validation = (
        " ".join(GPT2.decode(item.example.input_ids) for item in part) for part in (dataset.train, dataset.validation)
    )
    assert not [sentence for sentence in sentences if sentence in train and sentence in validation]


def test_a_document_that_is_most_of_the_data_is_not_held_out() -> None:
    for seed in range(8):
        options = DatasetOptions(seed=seed, max_length=96)
        assert held_out(built(prose("big", 30), prose("small", 3), options=options)) == {"file-small"}


def test_the_seed_decides_which_document_is_held_out() -> None:
    documents = [prose(f"d{number}", 2) for number in range(6)]
    choices = [held_out(built(*documents, options=DatasetOptions(seed=seed))) for seed in range(10)]
    assert len({tuple(choice) for choice in choices}) > 1
    assert choices == [held_out(built(*documents[::-1], options=DatasetOptions(seed=seed))) for seed in range(10)]


def test_one_document_is_cut_and_no_sentence_is_on_both_sides() -> None:
    sentences = [f"Sentence number {number} tells something of its own." for number in range(60)]
    options = DatasetOptions(max_length=96, chunk_overlap=40, validation_split=0.2)
    dataset = built(text_document("a", " ".join(sentences)), options=options)
    train, validation = (
        " ".join(GPT2.decode(item.example.input_ids) for item in part) for part in (dataset.train, dataset.validation)
    )
    assert validation
    assert [sentence in train for sentence in sentences].count(True) > 30
    assert not [sentence for sentence in sentences if sentence in train and sentence in validation]


def test_nothing_is_held_out_at_a_split_of_zero() -> None:
    options = DatasetOptions(validation_split=0.0)
    assert not built(prose("a"), prose("b"), options=options).validation
    assert not built(prose("a"), options=options).validation


def test_what_is_held_out_is_not_trained_on_even_if_another_document_says_the_same() -> None:
    same = [text_document(name, *(f"{index}: {LEAVE}" for index in range(4))) for name in ("a", "b")]
    with pytest.raises(TooFewExamples):
        built(*same)
    dataset = built(*same, prose("c", 4), prose("d", 4), options=DatasetOptions(max_length=96, validation_split=0.5))
    assert not _keys(dataset.train) & _keys(dataset.validation)
    assert dataset.statistics.duplicate_examples > 0


def _keys(items: object) -> set[tuple[int, ...]]:
    return {tuple(item.example.input_ids) for item in items}  # type: ignore[attr-defined]


some_document = st.builds(
    lambda name, number, is_pairs: pairs(f"q{name}", number) if is_pairs else prose(name, number),
    st.sampled_from("abcdefgh"),
    st.integers(1, 5),
    st.booleans(),
)


@settings(max_examples=40, deadline=None)
@given(documents=st.lists(some_document, min_size=1, max_size=6), share=st.floats(0, 0.5), seed=st.integers(0, 5))
def test_no_split_leaks_or_starves_the_training(documents: list[SourceDocument], share: float, seed: int) -> None:
    options = DatasetOptions(max_length=96, validation_split=share, seed=seed, chunk_overlap=10)
    try:
        dataset = built(*documents, options=options)
    except TooFewExamples:
        return
    assert len(dataset.train) >= 2
    assert not _keys(dataset.train) & _keys(dataset.validation)
    documents_made = {one.sha256 for one in documents}
    texts_made = {one.sha256 for one in documents if not one.text.conversations}
    if len(documents_made) > 1 and len(texts_made) != 1:
        assert not held_out(dataset) & {item.document_id for item in dataset.train}
    assert (share > 0) or not dataset.validation


# What cannot be learned


def test_no_document_is_an_error() -> None:
    with pytest.raises(NoDocuments):
        built()


def test_a_single_tiny_document_gives_too_few_examples() -> None:
    with pytest.raises(TooFewExamples, match=r"1 example .* at least 2"):
        built(text_document("a", "Hello."))


def test_questions_that_leave_no_room_for_answers_give_nothing_to_learn() -> None:
    long = pairs_document("a", *((f"{index} {LEAVE * 5}", "Yes.") for index in range(5)))
    with pytest.raises(NothingToLearn):
        built(long, options=DatasetOptions(max_length=32))


def test_examples_with_nothing_to_learn_are_dropped_and_counted() -> None:
    document = pairs_document("a", ("Who?", "Odile"), ("Where?", "Bern"), ("When?", "Now"), (LEAVE * 9, "Yes."))
    statistics = built(document, options=DatasetOptions(max_length=64)).statistics
    assert (statistics.chunks, statistics.dropped_examples, statistics.examples) == (4, 1, 3)


# Counting


def test_the_statistics_are_those_of_the_examples() -> None:
    dataset = built(prose("a"), prose("b"), pairs("c"))
    statistics = dataset.statistics
    examples = [item.example for item in (*dataset.train, *dataset.validation)]
    assert (statistics.documents, statistics.validation_documents, statistics.prompt_format) == (3, 1, "text")
    assert statistics.examples == statistics.train_examples + statistics.validation_examples == len(examples)
    assert statistics.tokens == sum(len(example.input_ids) for example in examples)
    supervised = sum(example.num_supervised for example in examples)
    assert statistics.supervised_share == pytest.approx(supervised / statistics.tokens, abs=1e-4)
    assert 0 < statistics.supervised_share < 1


def test_text2text_counts_what_is_read_and_written() -> None:
    dataset = built(pairs("a"), style=PromptFormat.TEXT2TEXT)
    examples = [item.example for item in (*dataset.train, *dataset.validation)]
    assert dataset.statistics.tokens == sum(len(one.input_ids) + len(one.labels) for one in examples)


def test_truncated_examples_are_counted() -> None:
    document = pairs_document("a", ("Who?", SICK * 9), ("Where?", "Bern"), ("When?", "Now"))
    assert built(document, options=DatasetOptions(max_length=64)).statistics.truncated_examples == 1


# On disk


def hashes(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_the_same_documents_in_any_order_give_the_same_bytes(tmp_path: Path) -> None:
    documents = [prose("a"), prose("b"), pairs("c")]
    options = DatasetOptions(max_length=96)
    for name, order in (("one", documents), ("two", documents[::-1])):
        tokenizer = tokenizers_of.gpt2_tokenizer()
        tokenizer("used before", truncation=True, max_length=3)  # leaves its mark on the backend
        save(build(order, tokenizer, PromptFormat.TEXT, options), tmp_path / name, "demo", options)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert any(name.endswith(".arrow") for name in hashes(tmp_path / "one"))


def test_the_fingerprint_changes_with_all_that_matters() -> None:
    documents = [prose("a"), prose("b")]
    options = DatasetOptions(max_length=96)
    chat = tokenizers_of.chat_tokenizer()
    other_template = tokenizers_of.chat_tokenizer(tokenizers_of.CHAT_TEMPLATE + " ")
    fingerprints = [
        built(*documents, options=options).fingerprint,
        built(prose("a"), prose("c"), options=options).fingerprint,
        built(*documents, options=DatasetOptions(max_length=97)).fingerprint,
        built(*documents, options=options, style=PromptFormat.DIALOGUE).fingerprint,
        build(documents, chat, PromptFormat.CHAT, options).fingerprint,
        build(documents, other_template, PromptFormat.CHAT, options).fingerprint,
    ]
    assert len(set(fingerprints)) == len(fingerprints)


def test_a_tokenizer_s_hash_does_not_change_with_its_use() -> None:
    tokenizer = tokenizers_of.gpt2_tokenizer()
    before = hash_of_tokenizer(tokenizer)
    tokenizer("used", truncation=True, max_length=3)
    assert hash_of_tokenizer(tokenizer) == before != hash_of_tokenizer(T5)


def test_a_saved_dataset_loads_as_it_was(tmp_path: Path) -> None:
    dataset = built(prose("a"), prose("b"), pairs("c"))
    save(dataset, tmp_path / "d", "demo", DatasetOptions())
    train, validation = load(tmp_path / "d")
    assert [(one.input_ids, one.labels) for one in train] == [
        (item.example.input_ids, item.example.labels) for item in dataset.train
    ]
    assert len(validation) == len(dataset.validation) > 0
    about = json.loads((tmp_path / "d" / "dataset.json").read_text())
    assert about["fingerprint"] == dataset.fingerprint
    assert (about["base_model"], about["prompt_format"]) == ("demo", "text")


@pytest.mark.parametrize("style", [PromptFormat.TEXT, PromptFormat.TEXT2TEXT])
def test_the_held_out_questions_are_saved_with_the_turns_before_each_answer(
    tmp_path: Path, style: PromptFormat
) -> None:
    said = ("Hi?", "Hello.", "Who?", "Me.", "Left out?", "Yes.")
    turns = [Message(role=("user", "assistant")[place % 2], content=one) for place, one in enumerate(said)]
    turns[-1]["weight"] = 0
    asked = SourceDocument("h", "h" * 64, "h", ExtractedText(conversations=(tuple(turns),)), is_held_out=True)
    text = SourceDocument("t", "t" * 64, "t", prose("t").text, is_held_out=True)
    save(built(pairs("c"), asked, text, style=style), tmp_path / "d", "demo", DatasetOptions())
    found = held_out_questions(tmp_path / "d") or []
    assert [[turn["content"] for turn in one.exchange] for one in found] == [["Hi?", "Hello."], [*said[:4]]]
    _, validation = load(tmp_path / "d")
    assert len({one.example for one in found}) == (1 if style is PromptFormat.TEXT else 2)
    assert all(one.example < len(validation) for one in found)


def test_a_dataset_of_an_older_version_has_no_held_out_questions_and_loads(tmp_path: Path) -> None:
    save(built(prose("a")), tmp_path / "d", "demo", DatasetOptions())
    assert held_out_questions(tmp_path / "d") == []
    (tmp_path / "d" / HELD_OUT).unlink()
    seal(tmp_path / "d")
    load(tmp_path / "d")
    assert held_out_questions(tmp_path / "d") is None


def test_a_dataset_without_validation_loads_too(tmp_path: Path) -> None:
    save(built(prose("a"), options=DatasetOptions(validation_split=0)), tmp_path / "d", "demo", DatasetOptions())
    assert load(tmp_path / "d")[1] == []


def test_a_missing_dataset_is_said(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="run the setup again"):
        load(tmp_path / "gone")


def test_a_dataset_is_trained_on_only_if_it_is_what_was_written_byte_for_byte(tmp_path: Path) -> None:
    save(built(prose("a")), tmp_path / "d", "demo", DatasetOptions())
    (arrow,) = (tmp_path / "d" / "train").glob("*.arrow")
    content = bytearray(arrow.read_bytes())
    content[len(content) // 2] ^= 1
    arrow.write_bytes(content)
    with pytest.raises(DatasetError, match="damaged; run the setup again"):
        load(tmp_path / "d")
