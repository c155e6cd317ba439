"""`/maintenance/doctor`: look at the whole installation, and repair it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from api.dependencies import AppServices
from api.maintenance.doctor import examine
from api.maintenance.findings import Report
from api.maintenance.site import Site

router = APIRouter(prefix="/maintenance", tags=["maintenance"])


class DoctorRequest(BaseModel):
    """`fix` repairs what can be repaired; `deep` compares every byte with its sum, which takes as long as reading."""

    model_config = ConfigDict(extra="forbid")

    fix: bool = False
    deep: bool = False


@router.get("/doctor")
def diagnose(
    services: AppServices, deep: Annotated[bool, Query(description="Compare every byte with its sum.")] = False
) -> Report:
    """What does not match between database, data folder and Redis, of all projects. Changes nothing."""
    return examine(Site(services.settings, services.database, services.storage, is_deep=deep))


@router.post("/doctor")
def treat(request: DoctorRequest, services: AppServices) -> Report:
    """The same, with `fix` repaired where it can be without a person's decision."""
    site = Site(services.settings, services.database, services.storage, is_deep=request.deep)
    return examine(site, is_fixing=request.fix)
