"""Requests that the OpenAPI document allows, and many that it does not: no 5xx, and no answer outside the document."""

from __future__ import annotations

from tests.faults.goals import Goal, Outcome, Trial


def _run(trial: Trial) -> Outcome:
    from tests.faults.hostile_requests_trial import try_hostile_requests  # takes seconds to import

    return try_hostile_requests(trial)


GOALS = (
    Goal(
        "hostile-requests",
        "Requests that Schemathesis makes of the OpenAPI document, in both dialects: every boundary that it names, "
        "chance, and sequences that use what earlier calls have answered. No 5xx, no answer that the document does not "
        "tell of, no wrong value taken, nothing found that was deleted.",
        _run,
        n=5_000,
        quick_n=0,
    ),
)
