"""The quality of a version as clients see it."""

from __future__ import annotations

from pydantic import BaseModel

from api.quality.reading import VersionQuality
from shared.drift import alarm


class QualityAnswer(BaseModel):
    """A version's answers of the last 24 hours; `mean_logprob` and `repetition` are means, shares are from 0 to 1.

    `compared` names the signals of which there is enough to put them beside those of the version's first days; `drift`
    says, with its figures, which of them are worse. How that is decided: `shared/drift.py`.
    """

    adapter: str
    version: int
    num_answers: int
    mean_logprob: float
    repetition: float
    truncated_share: float
    thumbs_up: int
    thumbs_down: int
    compared: list[str]
    drift: str | None


def quality_answer(one: VersionQuality) -> QualityAnswer:
    sums = one.sums
    return QualityAnswer(
        adapter=one.version.adapter,
        version=one.version.version,
        num_answers=sums.num_answers,
        mean_logprob=round(sums.mean_logprob / sums.num_answers, 4),
        repetition=round(sums.repetition / sums.num_answers, 4),
        truncated_share=round(sums.num_truncated / sums.num_answers, 4),
        thumbs_up=sums.thumbs_up,
        thumbs_down=sums.thumbs_down,
        compared=[compared.signal.name for compared in one.compared],
        drift=alarm(one.compared),
    )
