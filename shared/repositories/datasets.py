"""Datasets: what a setup job made, and of which documents."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from shared.models import Dataset, DatasetDocument


class DatasetRepository:
    """Reads and writes datasets within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    def add(self, dataset: Dataset, document_ids: Sequence[str]) -> None:
        """Enters a dataset whose folder is in its final place."""
        self.session.add(dataset)
        self.session.flush()
        self.session.add_all(DatasetDocument(dataset_id=dataset.id, document_id=one) for one in document_ids)

    def of_job(self, setup_job_id: str) -> Dataset | None:
        """The dataset that a setup job made, if it has."""
        return self.session.scalar(select(Dataset).where(Dataset.job_id == setup_job_id))
