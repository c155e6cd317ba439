from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import (
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from worker.inference.sampling import choose
from worker.inference.sequence import SamplingParameters, Sequence

WIDTH = 1013  # no multiple of anything
HUGE = 20_011  # more tokens than are looked at before all are sorted
GREEDY = SamplingParameters()


class Drawn(Sequence):
    """A sequence whose random numbers are told."""

    number: float = 0.5

    def draw(self) -> float:
        return self.number


def sequence(sampling: SamplingParameters = GREEDY, prompt: Iterable[int] = (1,), answer: Iterable[int] = ()) -> Drawn:
    made = Drawn("id", list(prompt), sampling, frozenset())
    for token in answer:
        made.append(token, 0.0, 0.0)
    return made


def random_logits(rows: int = 8, width: int = WIDTH, spread: float = 2.0) -> torch.Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(rows + width)) * spread


def warped(logits: torch.Tensor, sampling: SamplingParameters, tokens: list[int]) -> torch.Tensor:
    """Probabilities by transformers' processors, in the order in which `generate` applies them."""
    found: Any = LogitsProcessorList()
    if sampling.repetition_penalty != 1:
        found.append(RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty))
    found.append(TemperatureLogitsWarper(sampling.temperature))
    if sampling.top_k:
        found.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        found.append(TopPLogitsWarper(sampling.top_p))
    probabilities: torch.Tensor = found(torch.tensor([tokens]), logits[None])[0].softmax(-1)
    return probabilities


def chosen_over(
    logits: torch.Tensor, sampling: SamplingParameters, tokens: list[int], numbers: list[float]
) -> list[int]:
    """What one row chooses for each of the random numbers."""
    rows = [sequence(sampling, tokens) for _ in numbers]
    for row, number in zip(rows, numbers, strict=True):
        row.number = number
    return [token.id for token in choose(logits.expand(len(numbers), -1), rows)]


SETTINGS: dict[str, dict[str, Any]] = {
    "temperature": {},
    "hot": {"temperature": 2.0},
    "top-k": {"top_k": 7},
    "top-k of 1": {"top_k": 1},
    "top-k beyond the few": {"top_k": 300},
    "top-k beyond the vocabulary": {"top_k": 10**6},
    "top-p within the few": {"temperature": 0.4, "top_p": 0.6},
    "top-p beyond the few": {"temperature": 1.5, "top_p": 0.95},
    "tiny top-p": {"top_p": 1e-6},
    "top-k and top-p": {"top_k": 40, "top_p": 0.7},
    "many top-k and top-p": {"top_k": 400, "top_p": 0.9},
    "penalty": {"repetition_penalty": 1.7},
    "penalty below 1, with limits": {"repetition_penalty": 0.6, "top_k": 30, "top_p": 0.8},
}


@pytest.mark.parametrize("name", SETTINGS)
def test_the_random_number_is_looked_up_in_the_distribution_that_transformers_computes(name: str) -> None:
    sampling = replace(SamplingParameters(temperature=0.8), **SETTINGS[name])
    tokens = random.Random(1).choices(range(WIDTH), k=60)
    for logits in random_logits(3):
        expected = warped(logits, sampling, tokens).double()
        ends = expected.cumsum(-1)
        kept = expected.nonzero()[:, 0]
        kept = kept[expected[kept] > 1e-5]  # a number can be put into the middle of these
        middles = (ends[kept] - expected[kept] / 2).tolist()
        assert chosen_over(logits, sampling, tokens, middles) == kept.tolist()


def test_a_nucleus_larger_than_what_is_looked_at_first_is_found_in_all() -> None:
    for spread, top_p in ((0.5, 0.99), (0.5, 0.05), (3.0, 0.9)):
        logits = random_logits(1, HUGE, spread)[0]
        sampling = SamplingParameters(temperature=1.0, top_p=top_p)
        expected = warped(logits, sampling, [1]).double()
        ends = expected.cumsum(-1)
        tokens = expected.topk(50).indices.sort().values
        middles = (ends[tokens] - expected[tokens] / 2).tolist()
        assert chosen_over(logits, sampling, [1], middles) == tokens.tolist()
        least = expected.masked_fill(expected == 0, 2).argmin()
        assert chosen_over(logits, sampling, [1], [float(ends[least] - expected[least] / 2)]) == [int(least)]


def test_the_ends_of_the_random_range_choose_tokens_that_have_a_probability() -> None:
    logits = random_logits(1)[0]
    logits[:40] = logits[-40:] = -torch.inf
    changes: list[dict[str, Any]] = [{}, {"top_k": 900}, {"top_p": 0.999}, {"top_p": 0.2}, {"top_k": 3}]
    for change in changes:
        for token in chosen_over(
            logits, replace(SamplingParameters(temperature=1.0), **change), [1], [0.0, 1 - 2**-53]
        ):
            assert 40 <= token < WIDTH - 40


def test_penalties_on_the_answer_are_taken_off_as_openai_writes_them() -> None:
    logits = random_logits(1)[0]
    sampling = SamplingParameters(temperature=1.0, frequency_penalty=0.7, presence_penalty=-0.4)
    prompt, answer = [3, 4, 5], [4, 9, 9, 9, 12]
    counts = torch.zeros(WIDTH)
    for token in answer:
        counts[token] += 1
    expected = (logits - counts * 0.7 - (counts > 0).float() * -0.4).softmax(-1).double()
    rows = [sequence(sampling, prompt, answer) for _ in answer + prompt]
    for row, token in zip(rows, answer + prompt, strict=True):
        row.number = float(expected.cumsum(-1)[token] - expected[token] / 2)
    assert [one.id for one in choose(logits.expand(len(rows), -1), rows)] == answer + prompt


@pytest.mark.parametrize("penalizes_prompt", [True, False])
def test_the_repetition_penalty_counts_prompt_and_answer_and_not_an_encoder_s_prompt(penalizes_prompt: bool) -> None:
    sampling = SamplingParameters(repetition_penalty=1.9)
    prompt, answer = list(range(0, WIDTH, 3)), list(range(1, WIDTH, 3))
    counted = prompt + answer if penalizes_prompt else answer
    row = Drawn("id", prompt, sampling, frozenset(), penalizes_prompt=penalizes_prompt)
    for token in answer:
        row.append(token, 0.0, 0.0)
    for logits in random_logits(20):
        expected = RepetitionPenaltyLogitsProcessor(1.9)(torch.tensor([counted]), logits[None]).argmax()
        assert choose(logits[None], [row])[0].id == expected


def test_log_probabilities_are_the_model_s_own_whatever_chooses_the_token() -> None:
    logits = random_logits(3)
    asked = [
        replace(GREEDY, logprobs=5),
        replace(GREEDY, repetition_penalty=5.0),
        SamplingParameters(temperature=1.8, top_k=5, logprobs=20),
    ]
    found = choose(logits, [sequence(one, prompt=range(0, WIDTH, 2)) for one in asked])
    expected = logits.log_softmax(-1)
    for row, (token, sampling) in enumerate(zip(found, asked, strict=True)):
        assert token.logprob == pytest.approx(expected[row, token.id].item(), abs=1e-5)
        best = expected[row].topk(sampling.logprobs or 0)
        assert [one for one, _ in token.top] == best.indices.tolist()
        assert [one for _, one in token.top] == pytest.approx(best.values.tolist(), abs=1e-5)


def mixed_rows() -> list[Drawn]:
    """Rows of every kind, one of each."""
    asked = [replace(SamplingParameters(temperature=0.8), **change) for change in SETTINGS.values()]
    asked += [GREEDY, replace(GREEDY, repetition_penalty=1.3), replace(GREEDY, logprobs=3)]
    rows = [sequence(one, prompt=[index, 5], answer=[7]) for index, one in enumerate(asked)]
    for index, row in enumerate(rows):
        row.number = (index + 0.5) / len(rows)
    return rows


def test_a_row_s_token_depends_on_no_other_row() -> None:
    rows = mixed_rows()
    logits = random_logits(len(rows))
    together = choose(logits, rows)
    alone = [choose(logits[index : index + 1], [row])[0] for index, row in enumerate(rows)]
    order = random.Random(3).sample(range(len(rows)), len(rows))
    shuffled = choose(logits[order], [rows[index] for index in order])
    assert [one.id for one in together] == [one.id for one in alone]
    assert [one.id for one in shuffled] == [together[index].id for index in order]


def test_the_logits_are_left_as_they_are_and_half_precision_is_taken() -> None:
    rows = mixed_rows()
    logits = random_logits(len(rows))
    before = logits.clone()
    choose(logits, rows)
    assert torch.equal(logits, before)
    half = logits.bfloat16()
    expected = choose(half.float(), rows)
    assert choose(half, rows) == expected


def test_equal_logits_are_kept_or_left_together() -> None:
    logits = torch.zeros(WIDTH)
    logits[[5, 500, 900]] = 4.0
    numbers = [(index + 0.5) / 3 for index in range(3)]
    changes: list[dict[str, Any]] = [{"top_k": 2}, {"top_p": 0.05}]
    for change in changes:
        sampling = replace(SamplingParameters(temperature=1.0), **change)
        assert chosen_over(logits, sampling, [1], numbers) == [5, 500, 900]


@pytest.mark.parametrize("width", [1, 2, 31, 32, 33, 64, 257])
def test_a_vocabulary_of_any_size_will_do(width: int) -> None:
    rows = [replace(SamplingParameters(temperature=0.8), **change) for change in SETTINGS.values()]
    found = choose(random_logits(len(rows) + 1, width), [sequence(one, prompt=[0]) for one in [*rows, GREEDY]])
    assert all(0 <= token.id < width for token in found)


def test_logits_that_are_no_numbers_give_a_log_probability_that_is_none() -> None:
    rows = mixed_rows()
    logits = torch.full((len(rows), WIDTH), torch.nan)
    logits[0] = random_logits(1)[0]
    found = choose(logits, rows)
    assert all(0 <= token.id < WIDTH for token in found)
    assert [token.logprob == token.logprob for token in found] == [True, *[False] * (len(rows) - 1)]


def test_a_greedy_token_is_the_likeliest() -> None:
    logits = random_logits(4)
    expected = logits.log_softmax(-1).max(-1)
    found = choose(logits, [sequence() for _ in logits])
    assert [token.id for token in found] == expected.indices.tolist()
    assert [token.logprob for token in found] == pytest.approx(expected.values.tolist())
