"""Text of an answer while its tokens come: only what will not change any more is given out."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

REPLACEMENT = "\ufffd"  # stands for bytes that are no whole character (yet)
_NUM_NEIGHBOURS = 6  # tokens of a prompt that its continuation is decoded with


class TextStream:
    """The pieces put together are the decoded answer up to its first stop string, without white space at its two ends.

    A piece is what a short window of tokens decodes to beyond what its beginning decodes to, since a token's
    text may depend on its neighbour (SentencePiece's leading space) and a character may span tokens (UTF-8).
    A text that `continues` other tokens keeps its white space, as it belongs between the two.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, stop: Sequence[str] = (), continues: Sequence[int] = ()
    ) -> None:
        self._tokenizer = tokenizer
        self._cut = StopCut(stop)
        self._window = list(continues[-_NUM_NEIGHBOURS:])  # tokens from the last piece on
        self._num_given = len(self._window)  # tokens at the window's beginning whose text is given out
        self._is_trimmed = not continues
        self._starts: list[int] = []  # characters before each token's own
        self._num_characters = 0  # that are certain
        self._num_passed = 0  # characters that no stop string can take back
        self._space = ""  # white space that is given out once something follows it
        self._has_begun = False

    @property
    def has_stopped(self) -> bool:
        """A stop string has come: there is no further text."""
        return self._cut.has_stopped

    @property
    def num_tokens(self) -> int:
        """Tokens whose text has been given out, or begun to be; white space counts as given out."""
        return bisect_left(self._starts, self._num_passed)

    def push(self, token: int) -> str:
        """The text that became certain by `token`; may be empty."""
        self._starts.append(self._num_characters)
        self._window.append(token)
        given, text = self._decode(self._window[: self._num_given]), self._decode(self._window)
        if len(text) <= len(given) or text.endswith(REPLACEMENT):
            return ""
        self._window = self._window[self._num_given :]
        self._num_given = len(self._window)
        return self._passed(text[len(given) :])

    def finish(self) -> str:
        """The rest, at the end of the answer."""
        given, text = self._decode(self._window[: self._num_given]), self._decode(self._window)
        self._window, self._num_given = [], 0
        last = self._passed(text[len(given) :]) + self._out(self._cut.finish())
        if not self.has_stopped:
            self._num_passed = self._num_characters + 1  # the last tokens may have no text
        return last

    def _passed(self, piece: str) -> str:
        self._num_characters += len(piece)
        return self._out(self._cut.push(piece))

    def _out(self, piece: str) -> str:
        self._num_passed += len(piece)
        return self._trimmed(piece)

    def _trimmed(self, piece: str) -> str:
        if not self._is_trimmed:
            return piece
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


class StopCut:
    """Lets text through up to the stop string that is complete first (of several that end together, the longest).

    What may be the beginning of a stop string is held back until it is certain. Where the pieces' borders lie makes
    no difference.
    """

    def __init__(self, stop: Sequence[str]) -> None:
        self._stop = stop
        self._held = ""
        self.has_stopped = False

    def push(self, piece: str) -> str:
        """The text that is certainly before any stop string."""
        if self.has_stopped:
            return ""
        text = self._held + piece
        found = [(start + len(one), start) for one in self._stop if (start := text.find(one)) >= 0]
        if found:
            self.has_stopped, self._held = True, ""
            return text[: min(found)[1]]
        num_free = len(text) - self._num_begun(text)
        self._held = text[num_free:]
        return text[:num_free]

    def finish(self) -> str:
        """What was held back: no stop string came of it."""
        held, self._held = self._held, ""
        return held

    def _num_begun(self, text: str) -> int:
        """Characters at the text's end that may begin a stop string."""
        longest = max(map(len, self._stop), default=1) - 1
        sizes = range(min(longest, len(text)), 0, -1)
        return next((size for size in sizes if any(one.startswith(text[-size:]) for one in self._stop)), 0)
