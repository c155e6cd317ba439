"""`/models`: the base models that this installation allows."""

from __future__ import annotations

from fastapi import APIRouter

from api.dependencies import AppServices
from api.models.schemas import BaseModelAnswer
from api.pagination import Listing, listing
from shared.base_models import is_on_disk
from shared.settings import Settings

router = APIRouter(prefix="/models", tags=["models"])


@router.get("")
def list_models(services: AppServices) -> Listing[BaseModelAnswer]:
    """The default model first, then the names and patterns of FINETUNED_ALLOWED_MODELS."""
    settings = services.settings
    names = list(dict.fromkeys((settings.base_model, *settings.allowed_models)))
    return listing(names, len(names), lambda name: _answer(name, settings), str)


def _answer(name: str, settings: Settings) -> BaseModelAnswer:
    is_pattern = any(sign in name for sign in "*?[")
    return BaseModelAnswer(
        id=name,
        is_pattern=is_pattern,
        on_disk=not is_pattern and is_on_disk(name, settings.model_cache_dir),
        default=name == settings.base_model,
    )
