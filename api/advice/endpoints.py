"""`/fine-tuning/advice`: is it worth tuning, answering from the documents, both, or neither?"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Body

from api.advice.creating import create_advice
from api.advice.schemas import AdviceAnswer, AdviceRequest
from api.creation import Creation

router = APIRouter(prefix="/fine-tuning/advice", tags=["evaluations"])


@router.post("", status_code=202)
async def advise(creation: Creation, body: Annotated[AdviceRequest | None, Body()] = None) -> AdviceAnswer:
    """Trains a version on the documents and compares it with the base model, with answers from the documents, and with
    both together, on the same questions; GET /fine-tuning/evaluations/{evaluation_job_id} has the recommendation."""
    request, settings = body or AdviceRequest(), creation.services.settings
    return await creation.once(
        request, AdviceAnswer, lambda session: create_advice(session, creation.project, settings, request)
    )
