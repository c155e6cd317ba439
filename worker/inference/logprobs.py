"""Log-probabilities as they are answered: each token by its text and its bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from shared.messages import LikelyToken, TokenLogprob
from worker.inference.sequence import Sequence, TokenLogprobs

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

LOWEST = -9999.0  # stands for minus infinity, which JSON does not know
_REPLACEMENT = "\ufffd"
_WORD_START = "▁"  # SentencePiece's space
_PRINTABLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_OTHERS = [byte for byte in range(0x100) if byte not in _PRINTABLE]
# GPT-2's way to write bytes as visible characters (Radford et al. 2019)
_BYTE_OF = {chr(byte): byte for byte in _PRINTABLE} | {chr(0x100 + n): byte for n, byte in enumerate(_OTHERS)}


def logprobs_of(sequence: Sequence, tokenizer: PreTrainedTokenizerBase, begin: int = 0) -> list[TokenLogprob]:
    """Of the tokens whose text has been given out, from number `begin` on: not the end token, nor a stop string."""
    number = sequence.text.num_tokens if sequence.text is not None else len(sequence.tokens)
    return [_message(one, tokenizer) for one in sequence.logprobs[begin:number]]


def token_bytes(tokenizer: PreTrainedTokenizerBase, token: int) -> bytes:
    """What a token adds to a text; it may be part of a character."""
    text = str(tokenizer.decode([token], clean_up_tokenization_spaces=False))
    name = str(tokenizer.convert_ids_to_tokens(token) or "")
    if name.startswith(_WORD_START) and not text.startswith(" "):
        return b" " + text.encode()
    if _REPLACEMENT not in text:
        return text.encode()
    if len(name) == len("<0xFF>") and name.startswith("<0x"):
        return bytes.fromhex(name[3:5])
    return bytes(_BYTE_OF[one] for one in name) if all(one in _BYTE_OF for one in name) else text.encode()


def _message(found: TokenLogprobs, tokenizer: PreTrainedTokenizerBase) -> TokenLogprob:
    likely = tuple(LikelyToken(**_parts(tokenizer, *one)) for one in found.top)
    return TokenLogprob(**_parts(tokenizer, found.token, found.logprob), top_logprobs=likely)


def _parts(tokenizer: PreTrainedTokenizerBase, token: int, logprob: float) -> dict[str, Any]:
    content = token_bytes(tokenizer, token)
    text = content.decode(errors="replace")
    return {"token": text, "bytes": tuple(content), "logprob": max(logprob, LOWEST)}
