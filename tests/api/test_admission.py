"""Admission: a full queue refuses by what it was a moment ago, and notices soon that there is room again."""

from __future__ import annotations

from contextlib import ExitStack, suppress
from contextvars import copy_context

import pytest

from api.answers.admission import Admission
from shared.errors import QueueFull

MAX_QUEUED = 6


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Requests:
    """Requests on their way, each in a context of its own, as a server has them."""

    def __init__(self, admission: Admission) -> None:
        self.admission = admission
        self.open: list[tuple[object, ExitStack]] = []

    def come(self, number: int = 20) -> int:
        """How many of so many are let through."""
        before = len(self.open)
        for _ in range(number):
            context, stack = copy_context(), ExitStack()
            with suppress(QueueFull):
                context.run(stack.enter_context, self.admission.entering())
                self.open.append((context, stack))
        return len(self.open) - before

    def one_is(self, told: str, value: float) -> None:
        """The first of them that has not been told is admitted or refused, and goes on."""
        context, _ = self.open[0]
        context.run(getattr(self.admission, told), value)  # type: ignore[attr-defined]

    def one_ends(self) -> None:
        context, stack = self.open.pop(0)
        context.run(stack.close)  # type: ignore[attr-defined]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def requests(clock: Clock) -> Requests:
    return Requests(Admission(MAX_QUEUED, clock))


def test_no_more_are_let_through_at_once_than_may_wait(requests: Requests) -> None:
    assert requests.come() == MAX_QUEUED + 1, "and one that looks whether some have left"
    with pytest.raises(QueueFull), requests.admission.entering():
        pass


def test_one_that_is_admitted_is_on_its_way_no_more(requests: Requests, clock: Clock) -> None:
    assert requests.come(2) == 2
    requests.one_is("admitted", MAX_QUEUED - 1)
    assert requests.come() == MAX_QUEUED - 2, "five places, of which the other one takes one"
    requests.one_ends()  # its answer; that changes nothing
    assert requests.come() == 0


def test_a_full_queue_refuses_at_once_and_says_how_long_the_next_one_has_waited(requests: Requests) -> None:
    requests.come(1)
    requests.one_is("refused", 3.5)
    with pytest.raises(QueueFull) as refused, requests.admission.entering():
        pass
    assert refused.value.retry_after_seconds == 3.5


def test_a_moment_later_one_question_looks_again_and_those_beside_it_are_still_refused(
    requests: Requests, clock: Clock
) -> None:
    requests.come(1)
    requests.one_is("refused", 1.0)
    clock.now += 0.06
    assert requests.come() == 1


def test_where_one_is_admitted_as_many_follow_as_there_are_places(requests: Requests, clock: Clock) -> None:
    requests.come(1)
    requests.one_is("refused", 1.0)
    requests.one_ends()
    clock.now += 0.06
    requests.come(1)
    requests.one_is("admitted", 3)
    assert requests.come() == 3


def test_one_that_ends_without_having_been_sent_makes_room(requests: Requests, clock: Clock) -> None:
    requests.come(1)
    requests.one_is("admitted", 2)
    assert requests.come() == 2
    requests.one_ends()  # the first was told already
    assert requests.come() == 0
    requests.one_ends()  # say, with a body that is not valid
    assert requests.come() == 1


def test_when_nobody_has_asked_for_a_while_nobody_knows_that_the_queue_is_full(
    requests: Requests, clock: Clock
) -> None:
    requests.come(1)
    requests.one_is("refused", 1.0)
    requests.one_ends()
    clock.now += 2.0
    assert requests.come(MAX_QUEUED) == MAX_QUEUED
