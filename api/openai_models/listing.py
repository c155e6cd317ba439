"""Which models there are, under which names."""

from __future__ import annotations

from collections.abc import Iterator
from glob import glob

from sqlalchemy.orm import Session

from api.openai_models.schemas import ModelAnswer
from shared.base_models import check_allowed, default_cache_dir, is_on_disk, is_path
from shared.errors import ModelNotAllowed
from shared.model_names import FineTunedName
from shared.openai_training import fine_tuned_name
from shared.repositories.adapters import AdapterRepository
from shared.repositories.model_names import ModelNameRepository, NamedModel
from shared.repositories.served_models import ServedModelRepository, ServedVersion
from shared.settings import Settings


def all_models(session: Session, settings: Settings, project: str) -> list[ModelAnswer]:
    """The base models that are here; of each adapter its name, if it has a live version, and its versions' names; and
    the checkpoints' names."""
    served = ServedModelRepository(session)
    found = [_base_model(name) for name in _base_models(settings)]
    for one in served.versions(project):
        found += [_of_project(name, one.version.created_at, project) for name in _names(one, project)]
    for checkpoint, job in served.checkpoints(project):
        found.append(_of_project(str(fine_tuned_name(job, checkpoint.step)), checkpoint.created_at, project))
    return found


def resolved(session: Session, settings: Settings, project: str, name: str) -> NamedModel:
    """Raises `ModelNotFound`."""
    return ModelNameRepository(session, (*settings.allowed_models, settings.base_model)).resolve(project, name)


def one_model(session: Session, settings: Settings, project: str, name: str) -> ModelAnswer:
    """The model under the name that it was asked for by. Raises `ModelNotFound`."""
    found = resolved(session, settings, project, name)
    if found.checkpoint is not None:
        checkpoint = ServedModelRepository(session).checkpoint(project, found.checkpoint)
        return _of_project(name, checkpoint.created_at, project)
    if found.adapter is not None:
        version = AdapterRepository(session).resolve(project, found.adapter, found.version)
        return _of_project(name, version.created_at, project)
    return _base_model(name)


def _base_models(settings: Settings) -> list[str]:
    """The default model, and those that are allowed and on disk."""
    found = [settings.base_model]
    for name in _named_or_on_disk(settings):
        try:
            if is_on_disk(check_allowed(name, settings.allowed_models), settings.model_cache_dir):
                found.append(name)
        except ModelNotAllowed:
            continue
    return list(dict.fromkeys(found))


def _named_or_on_disk(settings: Settings) -> Iterator[str]:
    """Names to look at: those that are allowed, local folders that an allowed pattern finds, and the hub's cache."""
    for allowed in settings.allowed_models:
        yield from sorted(glob(allowed)) if is_path(allowed) else [allowed]
    cache_dir = settings.model_cache_dir or default_cache_dir()
    for folder in sorted(cache_dir.glob("models--*")):
        yield folder.name.removeprefix("models--").replace("--", "/", 1)


def _names(served: ServedVersion, project: str) -> list[str]:
    """The adapter's own name stands for its live version."""
    name, version = served.adapter.name, served.version
    if served.job is not None and served.job.kind == "training":
        fine_tuned = fine_tuned_name(served.job)
    else:
        fine_tuned = FineTunedName.of_version(version.base_model, project, name, version.id, None)
    return [*([name] if served.is_live else []), f"{name}@{version.number}", str(fine_tuned)]


def _of_project(name: str, created_at: float, project: str) -> ModelAnswer:
    return ModelAnswer(id=name, created=int(created_at), owned_by=project)


def _base_model(name: str) -> ModelAnswer:
    publisher, slash, _ = name.partition("/")
    return ModelAnswer(id=name, created=0, owned_by=publisher if slash and not is_path(name) else "system")
