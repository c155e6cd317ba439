"""The address `/`: where to go from here."""

from __future__ import annotations

from fastapi import APIRouter, Request
from pydantic import BaseModel
from starlette.responses import RedirectResponse, Response

from api.safe_headers import PAGES

router = APIRouter(tags=["health"])


class Welcome(BaseModel):
    """Links to the rest."""

    name: str
    version: str
    links: dict[str, str]


@router.get("/", response_model=Welcome)
async def welcome(request: Request) -> Welcome | Response:
    """What this is, and where its documentation, health and status stand; a browser is sent to the pages."""
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(f"{PAGES}/", headers={"Vary": "Accept"})
    links = {
        "pages": f"{PAGES}/",
        "documentation": "/docs",
        "openapi": "/openapi.json",
        "ready": "/health/ready",
        "status": "/fine-tuning/status",
        "models": "/models",
    }
    return Welcome(name=request.app.title, version=request.app.version, links=links)
