"""Deleting a model by its name."""

from __future__ import annotations

from sqlalchemy.orm import Session

from shared.errors import InvalidRequest
from shared.repositories.adapters import AdapterRepository
from shared.repositories.model_names import NamedModel
from shared.repositories.served_models import ServedModelRepository


def delete_model(session: Session, project: str, name: str, model: NamedModel) -> str:
    """Hides a version that is not in use, or a checkpoint; the id of the folder that may be removed afterwards."""
    if model.checkpoint is not None:
        ServedModelRepository(session).delete_checkpoint(project, model.checkpoint)
        return model.checkpoint
    if model.adapter is None:
        raise InvalidRequest("Base models belong to the installation and cannot be deleted.", param="model")
    if model.version is None:
        raise InvalidRequest(
            f"'{name}' stands for the version that is live; delete versions by their own names, such as '{name}@1'.",
            param="model",
        )
    return AdapterRepository(session).delete_version(project, model.adapter, model.version).id
