from __future__ import annotations

from worker.data.texts import ExtractedText, Section
from worker.retrieval.pieces import PIECE_WORDS, pieces_of


def test_a_piece_knows_its_heading_and_its_page() -> None:
    sections = (
        Section("Hotels cost at most 130 euros. " * 8, "Travel > Hotels", 2),
        Section("Trains are booked early. " * 8, "Travel > Trains", 3),
    )
    pieces = pieces_of(ExtractedText(sections))
    assert [(one.heading, one.page) for one in pieces] == [("Travel > Hotels", 2), ("Travel > Trains", 3)]


def test_a_long_section_is_cut_and_loses_no_word() -> None:
    words = [f"word{number}" for number in range(3 * PIECE_WORDS)]
    pieces = pieces_of(ExtractedText((Section(" ".join(words)),)))
    assert len(pieces) > 3
    assert {word for piece in pieces for word in piece.text.split()} == set(words)
    assert all(len(piece.text.split()) <= PIECE_WORDS for piece in pieces)


def test_a_script_without_spaces_is_cut_too() -> None:
    assert len(pieces_of(ExtractedText((Section("年次有給休暇は二十七日です。" * 200),)))) > 3


def test_exchanges_and_preferred_answers_are_pieces_of_their_own() -> None:
    asked = {"role": "user", "content": "How long is the leave?"}
    text = ExtractedText(
        conversations=((asked, {"role": "assistant", "content": "27 days"}),),  # type: ignore[arg-type]
        preferences=({"prompt": [asked], "chosen": "Twenty-seven days.", "rejected": "No idea."},),  # type: ignore[list-item,typeddict-item]
    )
    assert [one.text for one in pieces_of(text)] == [
        "User: How long is the leave?\nAssistant: 27 days",
        "User: How long is the leave?\nAssistant: Twenty-seven days.",
    ]
