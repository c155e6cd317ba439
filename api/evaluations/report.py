"""An evaluation's report as Markdown or as a page."""

from __future__ import annotations

from typing import Literal

from starlette.responses import Response

from api.comparisons.reading import compared_columns
from api.evaluations.schemas import labels_of, report_of
from shared.errors import NotFound
from shared.models import Job
from shared.report_text import html_of, markdown_of
from shared.storage import Storage

Format = Literal["markdown", "html"]
_TYPES: dict[Format, str] = {"markdown": "text/markdown; charset=utf-8", "html": "text/html; charset=utf-8"}
_NUM_COMPARED = 3  # columns whose answers stand beside the baseline's; the comparison of any other is a request away


def report_response(storage: Storage, job: Job, format: Format) -> Response:
    """The report with the answers that changed most. Raises `NotFound` before the evaluation has succeeded."""
    report = report_of(job)
    if report is None:
        raise NotFound(
            f"The evaluation is {job.status} and has no report that can be shown; one that has succeeded has.",
            param="evaluation_id",
        )
    others = [label for label in labels_of(job, report) if label != report.baseline]
    compared = [compared_columns(storage, job, report.baseline, label) for label in others[-_NUM_COMPARED:]]
    write = html_of if format == "html" else markdown_of
    return Response(write(job.id, report, compared), media_type=_TYPES[format])
