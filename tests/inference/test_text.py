from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.inference.tiny import make_sentencepiece_tokenizer, make_tokenizer
from worker.inference.text import REPLACEMENT, TextStream

TOKENIZERS = {"bytes": make_tokenizer(), "sentencepiece": make_sentencepiece_tokenizer()}
SENTENCES = ["Hello €uro 😀, it is 中文.", "  leading and trailing  ", "naïve\n\n  two", "é"]


def pieces_of(tokenizer: PreTrainedTokenizerFast, tokens: list[int]) -> list[str]:
    stream = TextStream(tokenizer)
    return [*(stream.push(token) for token in tokens), stream.finish()]


@pytest.mark.parametrize("text", SENTENCES)
def test_pieces_are_the_text_and_hold_no_half_character(text: str) -> None:
    tokenizer = TOKENIZERS["bytes"]
    pieces = pieces_of(tokenizer, tokenizer(text, add_special_tokens=False).input_ids)
    assert "".join(pieces) == text.strip()
    assert not any(REPLACEMENT in piece for piece in pieces)


def test_text_comes_as_soon_as_it_is_certain() -> None:
    tokenizer = TOKENIZERS["bytes"]
    assert pieces_of(tokenizer, tokenizer(" a €b ", add_special_tokens=False).input_ids) == [
        "", "a", "", "", "", " €", "b", "", "",
    ]  # fmt: skip


def test_sentencepiece_words_keep_the_spaces_between_them() -> None:
    tokenizer = TOKENIZERS["sentencepiece"]
    words = tokenizer.convert_tokens_to_ids(["▁ab", "c", "▁de", "<0xE2>", "<0x82>", "<0xAC>", "▁", "gh"])
    assert pieces_of(tokenizer, words) == ["ab", "c", " de", "", "", "€", "", " gh", ""]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 256), max_size=30))
def test_the_pieces_of_any_bytes_are_their_decoded_text(tokens: list[int]) -> None:
    tokenizer = TOKENIZERS["bytes"]
    assert "".join(pieces_of(tokenizer, tokens)) == decoded(tokenizer, tokens)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(st.sampled_from(["▁", "▁ab", "c", "gh", "."]), st.characters(codec="utf-8")), max_size=12))
def test_the_pieces_of_any_words_and_byte_tokens_are_their_decoded_text(parts: list[str]) -> None:
    tokenizer = TOKENIZERS["sentencepiece"]
    vocabulary = tokenizer.get_vocab()
    names = [
        name for part in parts for name in ([part] if part in vocabulary else [f"<0x{b:02X}>" for b in part.encode()])
    ]
    tokens = tokenizer.convert_tokens_to_ids(names)
    assert "".join(pieces_of(tokenizer, tokens)) == decoded(tokenizer, tokens)


def decoded(tokenizer: PreTrainedTokenizerFast, tokens: list[int]) -> str:
    whole = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(whole, str)
    return whole.strip()
