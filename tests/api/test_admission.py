"""Admission: a full queue refuses by what it was a moment ago, and notices soon that there is room again."""

from __future__ import annotations

import pytest

from api.answers.admission import Admission
from shared.errors import QueueFull


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_while_there_is_room_nobody_is_refused() -> None:
    admission = Admission(Clock())
    admission.check()
    admission.admitted()
    admission.check()


def test_a_full_queue_refuses_at_once_and_says_how_long_the_next_one_has_waited() -> None:
    admission = Admission(Clock())
    admission.refused(waited_seconds=3.5)
    with pytest.raises(QueueFull) as refused:
        admission.check()
    assert refused.value.retry_after_seconds == 3.5


def test_a_moment_later_one_question_looks_again_and_those_beside_it_are_still_refused() -> None:
    clock = Clock()
    admission = Admission(clock)
    admission.refused(waited_seconds=1.0)
    clock.now += 0.06
    admission.check()
    with pytest.raises(QueueFull):
        admission.check()


def test_once_one_is_admitted_all_are_let_through() -> None:
    clock = Clock()
    admission = Admission(clock)
    admission.refused(waited_seconds=1.0)
    clock.now += 0.06
    admission.check()
    admission.admitted()
    admission.check()
    admission.check()
