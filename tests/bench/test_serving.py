"""The serving benchmark sees what it is to see: late, lost, mixed and stale answers."""

from __future__ import annotations

import math
from typing import Any

import pytest

from bench.load import Reply, arrivals, open_loop
from bench.serving import Interval, _at, _intervals, judge

EXPECTED = {(1, "Who?"): "one", (2, "Who?"): "two"}
LIVE = _intervals([(1, -math.inf, -math.inf), (2, 10.0, 11.0)])


def reply(sent_at: float, done_at: float, version: int, text: str, **more: Any) -> Reply:
    answer = {"version": version, "answer": text, "fallback": False, "fallback_reason": None, **more}
    return Reply({"query": "Who?"}, sent_at, sent_at, done_at, done_at, answer)


def test_an_answer_by_the_version_that_was_live_on_its_way_is_right() -> None:
    found = judge([reply(5, 6, 1, "one"), reply(10.5, 12, 1, "one"), reply(10.5, 12, 2, "two")], EXPECTED, LIVE)
    assert (found.num_promotions, found.num_mixed, found.num_stale, found.failed) == (1, 0, 0, [])
    assert found.by_version == {1: 2, 2: 1}


def test_mixed_stale_and_failed_answers_are_counted() -> None:
    lost = Reply({"query": "Who?"}, 0, 0, 0, 0, None, "OSError: gone")
    fell_back = reply(5, 6, 1, "one", fallback=True, fallback_reason="broken")
    mixed, stale, early = reply(5, 6, 1, "one two"), reply(11.5, 12, 1, "one"), reply(5, 6, 2, "two")
    found = judge([lost, fell_back, mixed, stale, early], EXPECTED, LIVE)
    assert found.failed == ["OSError: gone", "broken"]
    assert (found.num_mixed, found.num_stale) == (1, 2)


def test_a_version_is_live_until_the_next_promotion_has_ended() -> None:
    assert [Interval(1, -math.inf, 11.0), Interval(2, 10.0, math.inf)] == LIVE


def test_an_open_loop_asks_whether_or_not_the_last_is_answered() -> None:
    from threading import Barrier

    together = Barrier(3)

    def ask(question: dict[str, Any], due_at: float) -> Reply:
        together.wait(10)  # passes only while three wait for their answers
        return Reply(question, due_at, due_at, due_at, due_at, {})

    replies = open_loop(ask, [{"query": str(number)} for number in range(3)], [0.0, 0.01, 0.02])
    assert [one.question["query"] for one in replies] == ["0", "1", "2"]


def test_arrivals_come_at_their_rate() -> None:
    times = arrivals(20, 100, seed=1)
    assert len(times) == pytest.approx(2000, rel=0.1)
    assert times == sorted(times) == arrivals(20, 100, seed=1)
    assert times[-1] < 100


def test_a_percentile_is_a_value_that_was_measured() -> None:
    assert (_at(range(1, 101), 0.5), _at(range(1, 101), 0.99), _at([7.0], 0.99)) == (50, 99, 7.0)
