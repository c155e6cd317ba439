"""Versions that are promoted and deleted while 32 clients read answers, each of which must be one version's alone.

What each version says is known beforehand: transformers and PEFT have written every answer, alone and offline.
"""

from __future__ import annotations

from tests.faults.goals import Goal, Outcome, Trial


def _run(trial: Trial) -> Outcome:
    from tests.faults.promotions_trial import promote_and_delete  # takes seconds to import

    return promote_and_delete(trial)


GOALS = (
    Goal(
        "promotions",
        "1,000 promotions and deletions under 32 streams: every answer is token for token that of one version, the one "
        "it names and that was asked for; 0 × 5xx. A deleted version finishes what it has begun; who asks for it by "
        "its number afterwards gets 404, or the base model where fallback is on.",
        _run,
        n=500,  # with either database
        quick_n=20,
    ),
)
