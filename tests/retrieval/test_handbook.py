"""The promise: the chunk that holds the answer is among the first three for nine of ten questions at least."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.retrieval import TOP_K, chapters_of, holds_answer, measure
from cli.demo.handbook import FOLDER, HandbookQuestion, read_handbook
from shared.retrieval.searching import Hit
from shared.settings import Settings


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("handbook")


@pytest.mark.parametrize("is_all", [True, False], ids=["all-files", "chapters-alone"])
def test_the_right_chunk_is_among_the_first_three(folder: Path, is_all: bool) -> None:
    handbook = read_handbook(FOLDER)
    settings = Settings(
        data_dir=folder,  # one, so that each text is extracted once
        database_url=f"sqlite:///{folder}/{is_all}.db",
        retrieval_url=str(folder / f"index-{is_all}"),
        openai_base_url=None,
    )
    outcome = measure(settings, handbook.documents if is_all else chapters_of(handbook), handbook.questions)
    assert len(outcome.ranks) >= 50
    assert outcome.share >= 0.9, [question for question, rank in outcome.ranks.items() if rank is None]
    assert TOP_K == 3


@pytest.mark.parametrize(
    ("text", "is_right"),
    [("It takes 2 hours.", True), ("It takes 12 hours.", False), ("2 whole hours", False), ("THE 2 Hours", True)],
)
def test_an_answer_counts_only_whole(text: str, is_right: bool) -> None:
    question = HandbookQuestion(question="How long?", answer="2 hours", seen=False, source="x.txt")
    assert holds_answer(Hit("d", "x.txt", "", None, 0, text, 1.0, 1.0), question) == is_right
