"""How near an answer is to the wanted one: exact match, token F1, ROUGE-L, chrF and BLEU.

ROUGE-L is rouge-score's, chrF and BLEU are sacrebleu's, at their defaults. Three things are ours, because the users'
documents are not all English: rouge-score's own tokenizer drops whatever is not ASCII, BLEU of a script without spaces
is taken over characters, and an answer of signs alone is compared sign by sign.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import cache
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from shared.answer_texts import is_exact_match, is_unspaced, split_unspaced, token_f1

if TYPE_CHECKING:
    from sacrebleu.metrics.bleu import BLEU
    from sacrebleu.metrics.chrf import CHRF

Wanted = str | Sequence[str]  # one accepted answer, or several
MOST_ROUGE_TOKENS = 500  # the longest common subsequence takes time by the product of both lengths
_ASCII_WORD = re.compile(r"[a-z0-9]+")


def answer_metrics(answer: str, wanted: Wanted) -> dict[str, float]:
    """`exact_match`, `f1` and `rouge_l` from 0 to 1, `chrf` and `bleu` from 0 to 100, of one answer.

    With several accepted answers the nearest counts, as SQuAD's script has it; BLEU and chrF treat them as several
    references, in sacrebleu's way. Raises `ValueError` where no answer is accepted.
    """
    accepted = _accepted(wanted)
    return {
        "exact_match": float(any(is_exact_match(answer, one) for one in accepted)),
        "f1": max(token_f1(answer, one) for one in accepted),
        "rouge_l": max(_rouge_l(answer, one) for one in accepted),
        "chrf": min(100.0, _chrf().sentence_score(answer, accepted).score),
        "bleu": min(100.0, _sentence_bleu(is_unspaced(" ".join(accepted))).sentence_score(answer, accepted).score),
    }


def corpus_metrics(answers: Sequence[str], wanted: Sequence[Wanted]) -> dict[str, float]:
    """`corpus_bleu` and `corpus_chrf`, from 0 to 100, counted over all answers at once: no mean of theirs. Nothing
    where there are no answers. Raises `ValueError` where an answer has nothing to be compared with."""
    accepted = [_accepted(one) for one in wanted]
    if len(answers) != len(accepted):
        raise ValueError(f"{len(answers)} answers cannot be compared with {len(accepted)} wanted ones")
    if not accepted:
        return {}
    references = [list(one) for one in zip_longest(*accepted)]  # sacrebleu's streams; None where one has fewer
    bleu = _corpus_bleu(is_unspaced(" ".join(text for one in accepted for text in one)))
    return {
        "corpus_bleu": min(100.0, bleu.corpus_score(answers, references).score),
        "corpus_chrf": min(100.0, _chrf().corpus_score(answers, references).score),
    }


class _Words:
    """rouge-score's tokenizer, for every script: of ASCII texts its tokens are those of rouge-score's own."""

    def tokenize(self, text: str) -> list[str]:
        """Words in lower case; signs, where there is nothing else."""
        if text.isascii():
            words = _ASCII_WORD.findall(text.lower())
        else:
            spelled = unicodedata.normalize("NFC", text).lower()
            words = split_unspaced("".join(one if _is_of_a_word(one) else " " for one in spelled)).split()
        return (words or text.split())[:MOST_ROUGE_TOKENS]


def _is_of_a_word(character: str) -> bool:
    return unicodedata.category(character)[0] in "LNM"  # letters, numbers, and the marks that belong to letters


def _rouge_l(answer: str, wanted: str) -> float:
    return float(_rouge().score(wanted, answer)["rougeL"].fmeasure)


def _accepted(wanted: Wanted) -> list[str]:
    accepted = [wanted] if isinstance(wanted, str) else list(wanted)
    if not accepted:
        raise ValueError("an answer needs one wanted answer at least to be compared with")
    return accepted


# Scorers are built once, when the first answer needs them: their imports take a second or two.


@cache
def _rouge() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(["rougeL"], tokenizer=_Words())


@cache
def _chrf() -> CHRF:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


@cache
def _sentence_bleu(by_character: bool) -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize="char" if by_character else "13a", effective_order=True)  # as `sentence_bleu` has it


@cache
def _corpus_bleu(by_character: bool) -> BLEU:
    from sacrebleu.metrics.bleu import BLEU

    # `force`: without a warning to the log where answers end in periods
    return BLEU(tokenize="char" if by_character else "13a", force=True)
