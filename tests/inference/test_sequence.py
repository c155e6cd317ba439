from __future__ import annotations

from dataclasses import replace

import pytest

from shared.messages import TokenLogprob
from tests.inference.tiny import make_tokenizer
from tests.tiny_models import EOS
from worker.inference.logprobs import LOWEST, logprobs_of
from worker.inference.sequence import SamplingParameters, Sequence
from worker.inference.text import TextStream

TOKENIZER = make_tokenizer()
SAMPLING = SamplingParameters(max_new_tokens=5, logprobs=1)


def new_sequence(stop: list[str], sampling: SamplingParameters = SAMPLING) -> Sequence:
    return Sequence("id", [1], sampling, frozenset([EOS]), text=TextStream(TOKENIZER, stop))


def say(sequence: Sequence, text: str, *, and_end: bool = False) -> str:
    """Appends the text's tokens until the answer is over."""
    said = ""
    for token in [*TOKENIZER(text, add_special_tokens=False).input_ids, *([EOS] if and_end else [])]:
        said += sequence.append(token, -0.5, 1.0, ((token, -0.5),))
        if sequence.finish_reason:
            break
    return said


@pytest.mark.parametrize(
    ("text", "and_end", "said", "reason", "num_tokens"),
    [
        ("ab.cd", False, "ab", "stop", 3),
        ("ab", True, "ab", "stop", 3),
        ("ab,", True, "ab,", "stop", 4),
        ("abcdef", False, "abcde", "length", 5),
        ("abcd,", False, "abcd,", "length", 5),
        ("abcd.", False, "abcd", "stop", 5),
    ],
)
def test_an_answer_ends_at_a_stop_string_its_end_token_or_its_limit(
    text: str, and_end: bool, said: str, reason: str, num_tokens: int
) -> None:
    sequence = new_sequence([".", ",;"])
    assert say(sequence, text, and_end=and_end) == said
    assert (sequence.finish_reason, len(sequence.tokens)) == (reason, num_tokens)


def test_log_probabilities_are_those_of_the_text_without_the_end_and_the_stop_string() -> None:
    for stop, text in (([".."], "ab.."), ([], "ab")):
        sequence = new_sequence(stop)
        say(sequence, text, and_end=True)
        found = logprobs_of(sequence, TOKENIZER)
        assert [one.token for one in found] == ["a", "b"]
        assert found[1].top_logprobs[0].bytes == (ord("b"),)
        assert logprobs_of(sequence, TOKENIZER, begin=1) == found[1:]


def test_a_log_probability_of_minus_infinity_survives_json() -> None:
    sequence = new_sequence([])
    sequence.append(5, -0.25, 1.0, ((5, -0.25), (6, float("-inf"))))
    (found,) = logprobs_of(sequence, TOKENIZER)
    assert TokenLogprob.model_validate_json(found.model_dump_json()).top_logprobs[1].logprob == LOWEST


def test_log_probabilities_are_kept_only_where_they_are_asked_for() -> None:
    sequence = new_sequence([], replace(SAMPLING, logprobs=None))
    say(sequence, "ab")
    assert sequence.logprobs == []


def test_tokens_are_counted_only_where_a_penalty_asks_for_it_and_the_prompt_s_for_repetition_alone() -> None:
    prompt = [7, 8, 7]
    counted = {}
    for name in ("repetition_penalty", "frequency_penalty", "presence_penalty"):
        sequence = Sequence("id", prompt, replace(SAMPLING, **{name: 0.5}), frozenset())
        for token in (8, 9, 8):
            sequence.append(token, 0.0, 0.0)
        assert sequence.counts is not None
        counted[name] = dict(zip(sequence.counts.ids, sequence.counts.times, strict=True))
    assert counted["repetition_penalty"] == {7: 0, 8: 2, 9: 1}
    assert counted["frequency_penalty"] == counted["presence_penalty"] == {8: 2, 9: 1}
    assert Sequence("id", prompt, SAMPLING, frozenset()).counts is None


def test_equal_seeds_draw_equal_numbers() -> None:
    first, same, other = (Sequence("id", [1], replace(SAMPLING, seed=seed), frozenset()) for seed in (1, 1, 2))
    numbers = [one.draw() for _ in range(5) for one in (first, same, other)]
    assert numbers[0::3] == numbers[1::3] != numbers[2::3]
