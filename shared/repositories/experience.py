"""Experience: what earlier trainings of a base model took, from which new ones are estimated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from shared.models import AdapterVersion, Dataset, DatasetDocument, Document

_MOST = 20  # the latest trainings: those before them ran on another machine, perhaps


@dataclass(frozen=True)
class PastTraining:
    """What its documents held, and what it took. None: not known."""

    num_bytes: int
    num_tokens: int
    num_examples: int
    tokens_per_second: float | None
    peak_memory_bytes: int | None


class ExperienceRepository:
    """Reads within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def of_model(self, base_model: str) -> Sequence[PastTraining]:
        """The latest trainings of the model in any project, newest first."""
        size = (
            select(func.sum(Document.size_bytes))
            .join(DatasetDocument, DatasetDocument.document_id == Document.id)
            .where(DatasetDocument.dataset_id == Dataset.id)
            .scalar_subquery()
        )
        wanted = (
            select(AdapterVersion.metrics, Dataset.statistics, size)
            .join(Dataset, Dataset.id == AdapterVersion.dataset_id)
            .where(AdapterVersion.base_model == base_model)
            .order_by(AdapterVersion.created_at.desc(), AdapterVersion.id)
            .limit(_MOST)
        )
        return [
            _past(metrics, statistics, int(size or 0)) for metrics, statistics, size in self.session.execute(wanted)
        ]


def _past(metrics: dict[str, float | None], statistics: dict[str, int], num_bytes: int) -> PastTraining:
    tokens, seconds, peak = (metrics.get(name) for name in ("trained_tokens", "seconds", "peak_memory_bytes"))
    return PastTraining(
        num_bytes=num_bytes,
        num_tokens=statistics.get("tokens", 0),
        num_examples=statistics.get("examples", 0),
        tokens_per_second=tokens / seconds if tokens and seconds else None,
        peak_memory_bytes=int(peak) if peak else None,
    )
