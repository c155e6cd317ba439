"""`/fine-tuning/sweeps`: create, list, read; a sweep is cancelled, paused and resumed as every job is."""

from __future__ import annotations

from fastapi import APIRouter

from api.creation import Creation
from api.dependencies import Id, Project, ReadSession
from api.pagination import Listing, Paging, listing
from api.sweeps.creating import create_sweep
from api.sweeps.reading import read_sweep, sweep_row
from api.sweeps.schemas import SweepAnswer, SweepCreated, SweepRequest, SweepRow
from shared.repositories.jobs import JobRepository
from shared.repositories.sweeps import SweepRepository

router = APIRouter(prefix="/fine-tuning/sweeps", tags=["sweeps"])


@router.post("", status_code=202)
async def create(creation: Creation, request: SweepRequest) -> SweepCreated:
    """Searches for the best configuration of a training; the best trial's weights become a version."""
    settings = creation.services.settings
    return await creation.once(
        request, SweepCreated, lambda session: create_sweep(session, creation.project, settings, request)
    )


@router.get("")
def list_sweeps(page: Paging, session: ReadSession, project: Project) -> Listing[SweepRow]:
    """Sweeps, newest first."""
    rows = JobRepository(session).page(project, kind="sweep", after=page.after, limit=page.limit)
    return listing(rows, page.limit, sweep_row, lambda job: job.id)


@router.get("/{sweep_id}")
def get_sweep(sweep_id: Id, session: ReadSession, project: Project) -> SweepAnswer:
    """One sweep with its trials, the best of them, and what matters."""
    return read_sweep(session, SweepRepository(session).get(project, sweep_id))
