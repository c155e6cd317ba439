"""Creating an evaluation job within one transaction: who is compared, and on what, is settled here."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from api.creation import Created
from api.evaluations.schemas import ColumnRequest, EvaluationCreated, EvaluationRequest
from api.validation import validated
from shared.errors import AdapterNotFound, InvalidRequest, NothingIndexed, SetupFailed
from shared.evaluation_parameters import MOST_COLUMNS, Column, EvaluationParameters
from shared.models import AdapterVersion, Dataset, Job
from shared.repositories.adapters import AdapterRepository
from shared.repositories.datasets import DatasetRepository
from shared.repositories.documents import DocumentRepository
from shared.repositories.indexed_documents import IndexedDocumentRepository
from shared.repositories.jobs import JobRepository
from shared.settings import Settings

QUESTION_KINDS = ("jsonl", "csv")


def create_evaluation(
    session: Session, project: str, settings: Settings, request: EvaluationRequest
) -> Created[EvaluationCreated]:
    """The job; it names the versions, which cannot be deleted until it has ended."""
    columns, versions = _columns(session, project, _wanted(session, project, request))
    if any(column.backend == "rag" for column in columns) and not IndexedDocumentRepository(session).has_any(project):
        raise NothingIndexed("There is no document to answer from: leave rag out, or upload some with POST /documents.")
    setup = _setup(session, project, request, versions)
    model = _base_model(versions, setup, settings)
    parameters = validated(
        EvaluationParameters,
        {
            "base_model": model,
            "columns": columns,
            "setup_job_id": None if setup is None else setup.id,
            "question_document_ids": check_question_files(session, project, request.question_document_ids),
            **request.options(),
        },
    )
    _check_examples(session, parameters, setup)
    waits_for = None if setup is None or setup.status == "succeeded" else setup.id
    stored = parameters.model_dump(mode="json")
    job = JobRepository(session).create(project, "evaluation", stored, waits_for=waits_for)
    return Created(EvaluationCreated(job_id=job.id, status=job.status, columns=list(parameters.labels)), job)


def _wanted(session: Session, project: str, request: EvaluationRequest) -> Sequence[ColumnRequest]:
    """The columns as the request names them; a version that is left out is the live one. The newest of several
    versions is the one that `rag` is combined with."""
    if request.columns is not None:
        return request.columns
    name = request.adapter or _latest(session, project)
    versions = [ColumnRequest(adapter=name, version=number) for number in request.versions or (None,)]
    base = [ColumnRequest()] if request.base else []
    newest = max(versions, key=lambda one: one.version or 0)
    rag = [ColumnRequest(backend="rag"), newest.model_copy(update={"backend": "rag"})] if request.rag else []
    return (*base, *versions, *rag)


def _latest(session: Session, project: str) -> str:
    latest = AdapterRepository(session).latest(project)
    if latest is None:
        raise AdapterNotFound(
            "Nothing is trained yet; train an adapter, or say in columns who answers.", param="adapter"
        )
    return latest[0].name


def _columns(
    session: Session, project: str, wanted: Sequence[ColumnRequest]
) -> tuple[tuple[Column, ...], list[AdapterVersion]]:
    """The columns, each once, and the versions that they name, which stay until this transaction ends."""
    adapters = AdapterRepository(session)
    names = dict.fromkeys((one.adapter, one.version) for one in wanted if one.adapter is not None)
    # In the order of names: two requests that lock the same adapters do not wait for each other.
    held = {name: adapters.held(project, *name) for name in sorted(names, key=lambda name: (name[0], name[1] or 0))}
    columns = [
        Column(
            backend=one.backend,
            adapter=one.adapter,
            version=None if one.adapter is None else held[one.adapter, one.version].number,
        )
        for one in wanted
    ]
    if len(set(columns)) > MOST_COLUMNS:
        raise InvalidRequest(
            f"An evaluation has {MOST_COLUMNS} columns at most, and this one would have {len(set(columns))}; name "
            "fewer versions.",
            param="versions",
        )
    return tuple(dict.fromkeys(columns)), list({version.id: version for version in held.values()}.values())


def _base_model(versions: Sequence[AdapterVersion], setup: Job | None, settings: Settings) -> str:
    """The one base model of all columns, for which the dataset was made."""
    models = sorted({version.base_model for version in versions})
    if len(models) > 1:
        raise InvalidRequest(
            f"The versions are of the base models {' and '.join(models[:2])}; compare versions of one base model.",
            param="columns",
        )
    of_setup = None if setup is None else str(setup.parameters["config"]["model_name"])
    model = models[0] if models else of_setup or settings.base_model
    if of_setup not in (None, model):
        raise InvalidRequest(
            f"The setup was made for {of_setup} and the versions are of {model}; name a setup of this model.",
            param="setup_job_id",
        )
    return model


def _setup(
    session: Session, project: str, request: EvaluationRequest, versions: Sequence[AdapterVersion]
) -> Job | None:
    """Whose held-out examples are used: the setup that is named, else the one of the newest version; None for one that
    was imported."""
    jobs = JobRepository(session)
    if request.setup_job_id is not None:
        return _usable(session, jobs.get(project, request.setup_job_id))
    newest = max(versions, key=lambda version: (version.created_at, version.number), default=None)
    dataset = None if newest is None or newest.dataset_id is None else session.get(Dataset, newest.dataset_id)
    return None if dataset is None else jobs.get(project, dataset.job_id)


def _usable(session: Session, setup: Job) -> Job:
    session.refresh(setup, with_for_update=True)  # it must not fail before the job that waits for it is there
    if setup.kind != "setup":
        raise InvalidRequest("setup_job_id names a job of another kind; give a setup job's id.", param="setup_job_id")
    if setup.status in ("failed", "cancelled"):
        raise SetupFailed(f"The setup job is {setup.status}; name another one.", param="setup_job_id")
    return setup


def check_question_files(
    session: Session, project: str, document_ids: Sequence[str], param: str = "question_document_ids"
) -> tuple[str, ...]:
    """The question files' ids, each once; raises `DocumentNotFound`, and `InvalidRequest` for another kind of file."""
    documents = DocumentRepository(session)
    for document_id in document_ids:
        document = documents.get(project, document_id, param=param)
        if document.kind not in QUESTION_KINDS:
            raise InvalidRequest(
                f"Questions are read from jsonl and csv documents, and {document_id} is {document.kind}; name one with "
                "a question and an answer a line.",
                param=param,
            )
    return tuple(dict.fromkeys(document_ids))


def _check_examples(session: Session, parameters: EvaluationParameters, setup: Job | None) -> None:
    """Raises `InvalidRequest` where there is nothing to compare on; while the setup runs, nobody knows."""
    if parameters.question_document_ids and parameters.max_questions:
        return
    if setup is None:
        raise InvalidRequest(
            "There is nothing to compare on: the newest version was not trained here; name question_document_ids, or a "
            "setup_job_id.",
            param="question_document_ids",
        )
    dataset = DatasetRepository(session).of_job(setup.id)
    if dataset is not None and not dataset.statistics.get("validation_examples", 1):
        raise InvalidRequest(
            "There is nothing to compare on: this setup held nothing out; name question_document_ids, or make a setup "
            "with a validation_split.",
            param="setup_job_id",
        )
