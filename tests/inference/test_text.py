from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from tests.inference.tiny import make_sentencepiece_tokenizer, make_tokenizer
from worker.inference.logprobs import token_bytes
from worker.inference.text import REPLACEMENT, StopCut, TextStream

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


def cut(text: str, stop: list[str]) -> str:
    """The text before the stop string that is complete first, found the slow way."""
    for end in range(len(text) + 1):
        found = [one for one in stop if text[:end].endswith(one)]
        if found:
            return text[: end - max(map(len, found))]
    return text


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text("ab", min_size=1, max_size=4), min_size=1, max_size=4),
    st.lists(st.text("abc", max_size=5), max_size=8),
)
def test_text_in_any_pieces_ends_before_the_stop_string_that_is_complete_first(
    stop: list[str], pieces: list[str]
) -> None:
    text = "".join(pieces)
    stop_cut = StopCut(stop)
    given_out = ""
    for piece in pieces:
        given_out += stop_cut.push(piece)
        assert cut(text, stop).startswith(given_out)
    assert given_out + stop_cut.finish() == cut(text, stop)
    assert stop_cut.has_stopped == any(one in text for one in stop)


@pytest.mark.parametrize("kind", TOKENIZERS)
@settings(max_examples=100, deadline=None)
@given(
    stop=st.lists(st.text("a€ \n", min_size=1, max_size=3), max_size=4),
    text=st.text("a€ \nb😀", max_size=12),
    odd=st.lists(st.integers(1, 256), max_size=2),
)
def test_pieces_of_any_tokens_are_the_decoded_text_up_to_the_first_stop_string(
    kind: str, stop: list[str], text: str, odd: list[int]
) -> None:
    tokenizer = TOKENIZERS[kind]
    odd = odd if kind == "bytes" else []  # a broken byte makes SentencePiece's decoder take back its neighbours
    tokens = [*tokenizer(text, add_special_tokens=False).input_ids, *odd]
    whole = str(tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))
    stream = TextStream(tokenizer, stop)
    pieces = []
    for token in tokens:
        pieces.append(stream.push(token))
        if stream.has_stopped:
            break
    pieces.append(stream.finish())
    assert "".join(pieces) == cut(whole, stop).strip()
    assert stream.has_stopped == any(one in whole for one in stop)


def test_what_may_begin_a_stop_string_waits_and_comes_if_it_does_not() -> None:
    tokenizer = TOKENIZERS["bytes"]
    stream = TextStream(tokenizer, ["STOP", "€"])
    tokens = tokenizer("xSTx STO€", add_special_tokens=False).input_ids
    assert [stream.push(token) for token in tokens] == ["x", "", "", "STx", "", "", "", "", "", "", " STO"]
    assert stream.has_stopped
    assert stream.finish() == ""


def test_tokens_count_from_when_their_text_is_given_out_and_those_of_a_stop_string_never() -> None:
    tokenizer = TOKENIZERS["bytes"]
    stream = TextStream(tokenizer, ["bc"])
    numbers = []
    for token in tokenizer("€abxbc", add_special_tokens=False).input_ids:
        stream.push(token)
        numbers.append(stream.num_tokens)
    assert numbers == [0, 0, 3, 4, 4, 6, 6, 6]
    stream.finish()
    assert stream.num_tokens == 6
    endless = TextStream(tokenizer, ["bc"])
    for token in tokenizer("ab", add_special_tokens=False).input_ids:
        endless.push(token)
    endless.finish()
    assert endless.num_tokens == 2


@pytest.mark.parametrize("text", SENTENCES)
def test_the_bytes_of_tokens_put_together_are_the_text(text: str) -> None:
    tokenizer = TOKENIZERS["bytes"]
    tokens = tokenizer(text, add_special_tokens=False).input_ids
    assert b"".join(token_bytes(tokenizer, token) for token in tokens).decode() == text


def test_a_word_s_space_and_a_byte_that_is_no_character_are_kept_in_the_bytes() -> None:
    sentencepiece, byte_level = TOKENIZERS["sentencepiece"], TOKENIZERS["bytes"]
    words = sentencepiece.convert_tokens_to_ids(["▁ab", "c", "▁", "<0xE2>"])
    assert [token_bytes(sentencepiece, token) for token in words] == [b" ab", b"c", b" ", b"\xe2"]
    assert sorted(token_bytes(byte_level, token) for token in range(1, 257)) == [bytes([one]) for one in range(256)]


def decoded(tokenizer: PreTrainedTokenizerFast, tokens: list[int]) -> str:
    whole = tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    assert isinstance(whole, str)
    return whole.strip()
