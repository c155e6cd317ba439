from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import NoDocuments
from tests.data import documents as make
from tests.data import tokenizers_of
from worker.base_models.formats import PromptFormat
from worker.data.examples import DatasetOptions
from worker.data.pipeline import examples_from, path_of, title_of

GPT2 = tokenizers_of.gpt2_tokenizer()
TEXTS = [f"Text {number}: {make.LEAVE}" for number in range(4)]


def test_texts_and_paths_become_examples_in_one_go(tmp_path: Path) -> None:
    pdf = make.write_pdf(tmp_path / "handbook.pdf")
    txt = make.write(tmp_path / "notes.txt", make.SICK)
    train, validation, statistics = examples_from(
        [*TEXTS, str(pdf), txt], GPT2, PromptFormat.TEXT, DatasetOptions(max_length=128)
    )
    learned = "".join(GPT2.decode(one.input_ids) for one in (*train, *validation))
    assert "Text 3" in learned
    assert "Leave > Sick leave" in learned
    assert (statistics["documents"], statistics["failed_documents"]) == (6, [])


def test_a_document_that_fails_does_not_disturb_the_others(tmp_path: Path) -> None:
    bad = make.write(tmp_path / "bad.pdf", b"no pdf at all")
    *_, statistics = examples_from(
        [bad, *TEXTS, "  ", "mistyped.pdf"], GPT2, PromptFormat.TEXT, DatasetOptions(max_length=128)
    )
    assert [(one["filename"], one["code"]) for one in statistics["failed_documents"]] == [
        ("bad.pdf", "document_mislabelled"),
        ("text 6", "document_empty"),
        ("mistyped.pdf", "document_corrupt"),
    ]
    assert statistics["documents"] == 4


def test_if_all_documents_fail_the_first_are_named(tmp_path: Path) -> None:
    names = [f"{letter}.pdf" for letter in "abcde"]
    with pytest.raises(NoDocuments, match=r"a\.pdf: There is no file .*; and 2 more"):
        examples_from(names, GPT2, PromptFormat.TEXT, DatasetOptions())
    with pytest.raises(NoDocuments, match="upload some"):
        examples_from([], GPT2, PromptFormat.TEXT, DatasetOptions())


@pytest.mark.parametrize("text", ["word", "Two words.", "a\nb.pdf", "x" * 300, "a\x00b", "See the file handbook.pdf"])
def test_a_string_that_names_no_file_is_a_text(text: str) -> None:
    assert path_of(text) is None


def test_a_file_s_name_says_what_it_is_about() -> None:
    assert title_of("staff-handbook_2025.pdf") == "staff handbook 2025"
