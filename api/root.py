"""The address `/`: where to go from here."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel

router = APIRouter(tags=["health"])


class Welcome(BaseModel):
    """Links to the rest."""

    name: str
    version: str
    links: dict[str, str]


@router.get("/")
def welcome(request: Request) -> Welcome:
    """What this is, and where its documentation, health and status stand."""
    links = {
        "documentation": "/docs",
        "openapi": "/openapi.json",
        "ready": "/health/ready",
        "status": "/fine-tuning/status",
        "models": "/models",
    }
    return Welcome(name=request.app.title, version=request.app.version, links=links)
