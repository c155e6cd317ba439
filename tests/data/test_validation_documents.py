"""Documents that are held out by name: they measure a training and are no part of it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.errors import NothingToLearn, TooFewExamples
from shared.training_method import SupervisedMethod
from tests.data import tokenizers_of
from tests.data.documents import pairs_document, preferences_document, text_document
from worker.base_models.formats import PromptFormat
from worker.data.dataset import BuiltDataset, build
from worker.data.examples import DatasetOptions, SourceDocument
from worker.data.methods import lessons_of
from worker.data.split import key_of

GPT2 = tokenizers_of.gpt2_tokenizer()


def built(*documents: SourceDocument, **options: float) -> BuiltDataset:
    return build(documents, GPT2, PromptFormat.TEXT, DatasetOptions(**{"max_length": 96, **options}))  # type: ignore[arg-type]


def pairs(name: str, numbers: range) -> SourceDocument:
    return pairs_document(name, *((f"What is {number}?", f"It is {number}.") for number in numbers))


def held_out(document: SourceDocument) -> SourceDocument:
    return replace(document, is_held_out=True)


def test_they_are_the_whole_held_out_part_and_no_share_of_the_others_is() -> None:
    made = built(
        *(pairs(f"d{one}", range(9 * one, 9 * one + 9)) for one in range(5)), held_out(pairs("v", range(90, 97)))
    )
    assert {item.document_id for item in made.validation} == {"file-v"}
    assert {item.document_id for item in made.train} == {f"file-d{one}" for one in range(5)}
    assert (len(made.train), len(made.validation)) == (45, 7)
    assert made.statistics.validation_documents == 1


def test_text_beside_them_is_neither_cut_nor_chunked_without_overlap() -> None:
    text = text_document("a", " ".join(f"Sentence number {one} tells something of its own." for one in range(60)))
    alone = built(text, validation_split=0.0, chunk_overlap=30)
    made = built(text, held_out(pairs("v", range(3))), chunk_overlap=30)
    assert [item.example for item in made.train] == [item.example for item in alone.train]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 11), st.integers(0, 3))
def test_what_stands_on_both_sides_is_never_trained_on(first: int, seed: int) -> None:
    made = built(pairs("t", range(14)), held_out(pairs("v", range(first, first + 4))), seed=seed)
    train, validation = ({key_of(item.example) for item in part} for part in (made.train, made.validation))
    assert not train & validation
    assert len(validation) == 4


def test_a_file_with_the_bytes_of_a_held_out_one_is_held_out() -> None:
    twin = replace(pairs("v", range(5)), id="file-another")
    for order in ([twin, held_out(pairs("v", range(5)))], [held_out(pairs("v", range(5))), twin]):
        made = built(pairs("t", range(20, 25)), *order)
        assert {item.document_id for item in made.train} == {"file-t"}
        assert {item.document_id for item in made.validation} == {"file-v"}
    with pytest.raises(TooFewExamples):
        built(twin, held_out(pairs("v", range(5))))


def test_an_answer_that_is_preferred_in_the_held_out_file_is_not_trained_on_either() -> None:
    made = built(
        pairs("t", range(6)), held_out(preferences_document("v", ("What is 3?", "It is 3.", "It is 4."))), seed=1
    )
    train, validation = ([item.example for item in part] for part in (made.train, made.validation))
    lessons = lessons_of(train, validation, SupervisedMethod())
    assert not {key_of(one) for one in lessons.train} & {key_of(one) for one in lessons.validation}
    assert len(lessons.train) == 5


def test_held_out_documents_without_an_answer_are_refused() -> None:
    empty = held_out(pairs_document("v", ("Who?", "")))
    with pytest.raises(NothingToLearn, match="The validation documents hold no answer to measure"):
        built(pairs("t", range(6)), replace(empty, text=replace(empty.text, conversations=())))


def test_the_fingerprint_tells_what_is_held_out() -> None:
    one, other = pairs("a", range(6)), pairs("b", range(10, 16))
    made = [built(one, other, validation_split=0.0)]
    made += [built(held_out(one), other, validation_split=0.0), built(one, held_out(other), validation_split=0.0)]
    assert len({dataset.fingerprint for dataset in made}) == 3
