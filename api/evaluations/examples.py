"""A page of an evaluation's examples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from shared.errors import NotFound
from shared.evaluation_report import Source
from shared.example_files import PlacedExample, read_examples
from shared.models import Job
from shared.storage import Storage


def example_page(
    storage: Storage, job: Job, *, source: Source | None, after: int, limit: int
) -> Sequence[PlacedExample]:
    """`limit` + 1 at most, behind the line that ends at `after`. Raises `NotFound` before it has succeeded."""
    if job.status != "succeeded":
        raise NotFound(
            f"The evaluation is {job.status}, and only one that has succeeded has examples.", param="evaluation_id"
        )
    return list(islice(read_examples(storage.evaluation(job.id), after=after, source=source), limit + 1))
