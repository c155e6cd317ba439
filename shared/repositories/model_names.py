"""Who is meant by a model's name: a base model, an adapter's live version, one version of it, or a checkpoint."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from shared.base_models import check_allowed
from shared.errors import ModelNotAllowed, ModelNotFound, NotFound
from shared.model_names import FineTunedName, parse_version
from shared.models import Adapter, AdapterVersion, ModelCheckpoint
from shared.repositories.adapters import AdapterRepository


@dataclass(frozen=True)
class NamedModel:
    """Who answers. `base_model` alone: that; with `adapter` its version `version`, or the live one; with `checkpoint`
    the checkpoint of that id."""

    base_model: str
    adapter: str | None = None
    version: int | None = None
    checkpoint: str | None = None


class ModelNameRepository:
    """Reads what names stand for, within one session."""

    def __init__(self, session: Session, allowed_models: Iterable[str]) -> None:
        self.session = session
        self._allowed_models = tuple(allowed_models)

    def resolve(self, project_id: str, name: str) -> NamedModel:
        """An `ft:` name, `adapter@version`, an adapter's name, then a base model's. Raises `ModelNotFound`."""
        fine_tuned = FineTunedName.parse(name)
        if fine_tuned is not None:
            return self._fine_tuned(project_id, name, fine_tuned)
        adapter, number = parse_version(name) or (name, None)
        with suppress(NotFound):
            version = AdapterRepository(self.session).resolve(project_id, adapter, number)
            return NamedModel(version.base_model, adapter, number)
        with suppress(ModelNotAllowed):
            return NamedModel(check_allowed(name, self._allowed_models))
        raise _unknown(name)

    def _fine_tuned(self, project_id: str, name: str, wanted: FineTunedName) -> NamedModel:
        if wanted.step is not None:
            checkpoint = self.session.scalar(
                select(ModelCheckpoint).where(
                    ModelCheckpoint.project_id == project_id,
                    ModelCheckpoint.job_id == wanted.job_id,
                    ModelCheckpoint.step == wanted.step,
                    ModelCheckpoint.deleted_at.is_(None),
                )
            )
            if checkpoint is None:
                raise _unknown(name)
            return NamedModel(checkpoint.base_model, checkpoint.adapter, checkpoint=checkpoint.id)
        row = self.session.execute(
            select(Adapter.name, AdapterVersion)
            .join(AdapterVersion, AdapterVersion.adapter_id == Adapter.id)
            .where(
                Adapter.project_id == project_id,
                or_(AdapterVersion.job_id == wanted.job_id, AdapterVersion.id == wanted.version_id),
                AdapterVersion.deleted_at.is_(None),
            )
        ).first()
        if row is None:
            raise _unknown(name)
        return NamedModel(row[1].base_model, row[0], row[1].number)


def _unknown(name: str) -> ModelNotFound:
    return ModelNotFound(
        f"The model '{name[:200]}' does not exist or you do not have access to it; GET /v1/models lists them.",
        param="model",
    )
