"""`/fine-tuning`: setup, train, status."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body

from api.creation import Creation
from api.dependencies import AppServices, Project, ReadSession
from api.fine_tuning.creating import create_setup, create_training
from api.fine_tuning.schemas import SetupAnswer, SetupRequest, StatusAnswer, TrainAnswer, TrainRequest
from api.fine_tuning.status import read_status
from api.health.checks import RedisUp

router = APIRouter(prefix="/fine-tuning", tags=["fine-tuning"])


@router.post("/setup", status_code=202)
async def set_up(creation: Creation, body: Annotated[SetupRequest | None, Body()] = None) -> SetupAnswer:
    """Makes a dataset of documents and, unless `train` is false, trains an adapter on it. An empty body will do."""
    request, settings = body or SetupRequest(), creation.services.settings
    return await creation.once(
        request, SetupAnswer, lambda session: create_setup(session, creation.project, settings, request)
    )


@router.post("/train", status_code=202)
async def train(creation: Creation, request: TrainRequest) -> TrainAnswer:
    """Trains on the dataset of a setup job."""
    return await creation.once(
        request, TrainAnswer, lambda session: create_training(session, creation.project, request)
    )


@router.get("/status")
def get_status(session: ReadSession, services: AppServices, project: Project, is_redis_up: RedisUp) -> StatusAnswer:
    """Whether something is trained and can answer, what is going on, and what is missing."""
    return read_status(session, project, services.settings, services.quality, is_redis_up)
