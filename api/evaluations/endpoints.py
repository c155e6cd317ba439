"""`/fine-tuning/evaluations`: create, list, read, examples, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Query
from starlette.responses import Response

from api.creation import Creation
from api.dependencies import AppServices, Id, Project, ReadSession, WriteSession
from api.evaluations.creating import create_evaluation
from api.evaluations.examples import example_page
from api.evaluations.report import Format, report_response
from api.evaluations.schemas import (
    TEXTS,
    DeletedEvaluation,
    EvaluationAnswer,
    EvaluationCreated,
    EvaluationItem,
    EvaluationRequest,
    evaluation_answer,
    evaluation_item,
)
from api.pagination import Listing, Paging, listing
from shared.evaluation_report import ExampleRow, Source
from shared.repositories.evaluations import EvaluationRepository
from shared.setup_parameters import ADAPTER_NAME

router = APIRouter(prefix="/fine-tuning/evaluations", tags=["evaluations"])

AdapterFilter = Annotated[str | None, Query(pattern=ADAPTER_NAME, description="Only those with a column of it.")]
AfterExample = Annotated[str | None, Query(pattern=r"^[0-9]{1,18}$", description="`last_id` of the page before.")]


@router.post("", status_code=202)
async def create(creation: Creation, request: EvaluationRequest) -> EvaluationCreated:
    """Compares the base model, versions and retrieval on the same held-out examples and questions, in a training
    worker and by inference workers, behind the questions that somebody waits for."""
    settings = creation.services.settings
    return await creation.once(
        request, EvaluationCreated, lambda session: create_evaluation(session, creation.project, settings, request)
    )


@router.get("")
def list_evaluations(
    page: Paging, session: ReadSession, project: Project, adapter: AdapterFilter = None
) -> Listing[EvaluationItem]:
    """Evaluations, newest first."""
    evaluations = EvaluationRepository(session)
    rows = evaluations.page(project, adapter=adapter, after=page.after, limit=page.limit)
    return listing(rows, page.limit, evaluation_item, lambda job: job.id)


@router.get("/{evaluation_id}")
def get_evaluation(evaluation_id: Id, session: ReadSession, project: Project) -> EvaluationAnswer:
    """One evaluation with its report: every figure with its interval and the number of examples behind it."""
    return evaluation_answer(EvaluationRepository(session).get(project, evaluation_id))


@router.get("/{evaluation_id}/examples")
def list_examples(
    evaluation_id: Id,
    session: ReadSession,
    services: AppServices,
    project: Project,
    source: Source | None = None,
    after: AfterExample = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Listing[ExampleRow]:
    """Each example with what every column made of it, in the order in which they were asked."""
    job = EvaluationRepository(session).get(project, evaluation_id)
    rows = example_page(services.storage, job, source=source, after=int(after or 0), limit=limit)
    return listing(rows, limit, lambda row: row.example, lambda row: row.end)


@router.get("/{evaluation_id}/report", response_class=Response, responses=TEXTS)
def get_report(
    evaluation_id: Id, session: ReadSession, services: AppServices, project: Project, format: Format = "markdown"
) -> Response:
    """The report as a text to send on: Markdown, or one page of HTML that loads nothing."""
    job = EvaluationRepository(session).get(project, evaluation_id)
    return report_response(services.storage, job, format)


@router.delete("/{evaluation_id}")
def delete_evaluation(
    evaluation_id: Id, session: WriteSession, services: AppServices, project: Project, background: BackgroundTasks
) -> DeletedEvaluation:
    """Deletes the report and the answers of an evaluation that has ended; its job stays."""
    job = EvaluationRepository(session).delete(project, evaluation_id)
    background.add_task(services.storage.withdraw, services.storage.evaluation(job.id))
    return DeletedEvaluation(id=job.id)
