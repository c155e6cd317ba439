"""Malicious and broken weights and configurations: imported by the real API and job, or loaded as base models."""

from __future__ import annotations

from tests.faults.goals import Goal, Outcome, Trial


def _run(trial: Trial) -> Outcome:
    from tests.faults.hostile_weights_trial import try_hostile_weights  # takes seconds to import

    return try_hostile_weights(trial)


GOALS = (
    Goal(
        "hostile-weights",
        "Malicious and broken adapters and base models (pickles, programs in configurations, header bombs, evil "
        "archives and names) are refused with a code: nothing is run, nobody outside is asked, nothing is published.",
        _run,
        n=95,
        quick_n=12,
    ),
)
