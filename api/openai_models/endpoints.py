"""`/v1/models`: list, retrieve, delete."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, BackgroundTasks, Path

from api.dependencies import AppServices, Project, ReadSession, WriteSession
from api.openai_models.deleting import delete_model
from api.openai_models.listing import all_models, one_model, resolved
from api.openai_models.schemas import DeletedModel, ModelAnswer
from api.pagination import Listing
from shared.storable import STORABLE

router = APIRouter(prefix="/v1/models", tags=["OpenAI"])

# Names hold `/`, `:` and `@`. Not every database takes the character 0.
Name = Annotated[str, Path(min_length=1, max_length=1024, pattern=STORABLE)]


@router.get("")
def list_models(services: AppServices, session: ReadSession, project: Project) -> Listing[ModelAnswer]:
    """Every model at once, as OpenAI does: base models, then adapters and their versions, then checkpoints."""
    found = all_models(session, services.settings, project)
    return Listing(data=found, first_id=found[0].id, last_id=found[-1].id)


@router.get("/{model:path}")
def get_model(model: Name, services: AppServices, session: ReadSession, project: Project) -> ModelAnswer:
    """One model, by any of its names."""
    return one_model(session, services.settings, project, model)


@router.delete("/{model:path}")
def remove_model(
    model: Name, services: AppServices, session: WriteSession, project: Project, background: BackgroundTasks
) -> DeletedModel:
    """Deletes a version that is neither live nor in use, or a checkpoint."""
    folder = delete_model(session, project, model, resolved(session, services.settings, project, model))
    background.add_task(services.storage.withdraw, services.storage.version(folder))
    return DeletedModel(id=model)
