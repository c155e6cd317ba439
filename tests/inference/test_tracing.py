"""An answer's phases follow each other and fill its time, whatever the clocks say."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.inference.test_recording import question
from worker.inference.sequence import SamplingParameters, Sequence
from worker.inference.tracing import Moments, phases_of

ALL = ["queue", "prepare", "schedule", "prefill", "decode"]


def sequence(started_at: float | None, first_token_at: float | None) -> Sequence:
    return Sequence(
        id="answer-1/0",
        prompt=[1],
        sampling=SamplingParameters(),
        stop_tokens=frozenset(),
        started_at=started_at,
        first_token_at=first_token_at,
    )


@pytest.mark.parametrize(
    ("received_at", "submitted_at", "started_at", "first_token_at", "names"),
    [
        (1.0, 2.0, 3.0, 4.0, ALL),
        (-5.0, -4.0, -3.0, -2.0, ALL),  # the worker's clock is behind the API's
        (1.0, 2.0, 3.0, None, ALL[:4]),
        (1.0, None, None, None, ALL[:2]),
        (None, None, None, None, ALL[:1]),
    ],
)
def test_phases_follow_each_other_and_none_ends_before_it_begins(
    received_at: float | None,
    submitted_at: float | None,
    started_at: float | None,
    first_token_at: float | None,
    names: list[str],
) -> None:
    asked = question().model_copy(update={"asked_at": 0.0})
    phases = list(phases_of(asked, Moments(received_at, submitted_at), sequence(started_at, first_token_at), now=9.0))
    assert [one.name for one in phases] == names
    moments = [phases[0].begins_at, *(one.ends_at for one in phases)]
    assert moments == sorted(moments)
    assert (moments[0], moments[-1]) == (0.0, 9.0)
    assert all(later.begins_at == earlier.ends_at for earlier, later in pairwise(phases))
