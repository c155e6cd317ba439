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


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def admission(clock: Clock) -> Admission:
    return Admission(plenty=4, clock=clock)


def num_let_through(admission: Admission, num_asked: int = 20) -> int:
    passed = 0
    for _ in range(num_asked):
        try:
            admission.check()
        except QueueFull:
            continue
        passed += 1
    return passed


def test_while_nobody_was_refused_all_are_let_through(admission: Admission) -> None:
    assert num_let_through(admission) == 20
    admission.admitted(num_places=0)
    assert num_let_through(admission) == 20


def test_a_full_queue_refuses_at_once_and_says_how_long_the_next_one_has_waited(admission: Admission) -> None:
    admission.refused(waited_seconds=3.5)
    with pytest.raises(QueueFull) as refused:
        admission.check()
    assert refused.value.retry_after_seconds == 3.5


def test_a_moment_later_one_question_looks_again_and_those_beside_it_are_still_refused(
    admission: Admission, clock: Clock
) -> None:
    admission.refused(waited_seconds=1.0)
    clock.now += 0.06
    assert num_let_through(admission) == 1


def test_where_one_is_admitted_as_many_follow_as_there_are_places(admission: Admission, clock: Clock) -> None:
    admission.refused(waited_seconds=1.0)
    clock.now += 0.06
    admission.check()
    admission.admitted(num_places=3)
    assert num_let_through(admission) == 3


def test_questions_that_took_a_place_and_were_not_sent_hold_up_nobody_for_long(
    admission: Admission, clock: Clock
) -> None:
    admission.refused(waited_seconds=1.0)
    clock.now += 0.06
    admission.check()
    admission.admitted(num_places=2)
    assert num_let_through(admission) == 2  # say, with a body that is not valid
    clock.now += 0.06
    assert num_let_through(admission) == 1


def test_once_there_are_plenty_of_places_all_are_let_through(admission: Admission, clock: Clock) -> None:
    admission.refused(waited_seconds=1.0)
    clock.now += 0.06
    admission.check()
    admission.admitted(num_places=4)
    assert num_let_through(admission) == 20
