"""Text of an answer while its tokens come: only what will not change any more is given out."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REPLACEMENT = "\ufffd"  # stands for bytes that are no whole character (yet)


class TextStream:
    """The pieces put together are the decoded answer without white space at its two ends.

    A piece is what a short window of tokens decodes to beyond what its beginning decodes to, since a token's
    text may depend on its neighbour (SentencePiece's leading space) and a character may span tokens (UTF-8).
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []  # tokens from the last piece on
        self._num_given = 0  # tokens at the window's beginning whose text is given out
        self._space = ""  # white space that is given out once something follows it
        self._has_begun = False

    def push(self, token: int) -> str:
        """The text that became certain by `token`; may be empty."""
        self._window.append(token)
        given, text = self._decode(self._window[: self._num_given]), self._decode(self._window)
        if len(text) <= len(given) or text.endswith(REPLACEMENT):
            return ""
        self._window = self._window[self._num_given :]
        self._num_given = len(self._window)
        return self._trimmed(text[len(given) :])

    def finish(self) -> str:
        """The rest, at the end of the answer."""
        given, text = self._decode(self._window[: self._num_given]), self._decode(self._window)
        return self._trimmed(text[len(given) :])

    def _trimmed(self, piece: str) -> str:
        piece = self._space + piece
        if not self._has_begun:
            piece = piece.lstrip()
        kept = piece.rstrip()
        self._space = piece[len(kept) :]
        self._has_begun = self._has_begun or bool(kept)
        return kept

    def _decode(self, tokens: list[int]) -> str:
        if not tokens:
            return ""
        return str(self._tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False))
