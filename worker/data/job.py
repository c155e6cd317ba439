"""The setup job: the project's documents become a dataset, and what cannot be read is said."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

# Used further down the calls; imported here, so that the fork server, which loads this module, has paid the seconds
# that they take before a job comes.
import datasets  # noqa: F401
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig  # noqa: F401

from shared.claimed_job import ClaimedJob
from shared.disk import DiskRoom
from shared.errors import CorruptDocument, DocumentError, Superseded
from shared.ids import new_id
from shared.models import Dataset, Document
from shared.repositories.datasets import DatasetRepository
from shared.repositories.documents import DocumentRepository
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.setup_parameters import SetupParameters
from shared.storage import Storage, publish_folder, sha256_of
from worker.base_models.formats import format_of, longest_example
from worker.base_models.loading import load_config, load_tokenizer
from worker.data.dataset import BuiltDataset, build, save
from worker.data.examples import DatasetOptions, SourceDocument
from worker.data.extraction import ExtractionLimits, extract
from worker.data.methods import lessons_of
from worker.data.pipeline import failure, require_some, title_of
from worker.data.text_cache import TextCache
from worker.data.texts import ExtractedText

_SPACE_PER_BYTE = 4  # of the documents: their text, and tokens and labels of overlapping chunks


@dataclass(frozen=True)
class ReadDocuments:
    """The documents that could be read, and how the others failed."""

    sources: list[SourceDocument]
    failed: list[dict[str, str]]


def run_setup(
    job: ClaimedJob, settings: Settings, storage: Storage, should_stop: Callable[[], bool] = lambda: False
) -> None:
    """Works on a claimed setup job until it has succeeded, or until `should_stop` between two documents: the next
    attempt finds the texts that were read. Errors of the tree propagate to the caller, who fails the job with them;
    short transactions stand around the slow work."""
    parameters = SetupParameters.model_validate(job.claim.parameters)
    model = parameters.config.model_name
    tokenizer = load_tokenizer(model, settings.model_cache_dir)
    config = load_config(model, settings.model_cache_dir)
    style = format_of(config, tokenizer)
    read = _read_documents(job, parameters, settings, storage, should_stop)
    if should_stop():
        return
    _check_read(read, parameters)
    options = options_of(parameters, config)
    job.log(f"Building the dataset from {len(read.sources)} documents for {model} ({style.value})")
    dataset = build(read.sources, tokenizer, style, options)
    _check_method(job, dataset, parameters)
    dataset_id = _publish(dataset, storage, model, options)
    _record(job, storage, dataset, dataset_id, model, read)


def _check_method(job: ClaimedJob, dataset: BuiltDataset, parameters: SetupParameters) -> None:
    """Raises now what the training would raise; says what it will not learn."""
    train, validation = ([item.example for item in items] for items in (dataset.train, dataset.validation))
    lessons = lessons_of(train, validation, parameters.config.method)
    if lessons.note:
        job.log(lessons.note)


def _check_read(read: ReadDocuments, parameters: SetupParameters) -> None:
    """Raises `NoDocuments` if there is nothing to learn from, or nothing of what was to measure it."""
    held_out = parameters.validation_document_ids or ()
    failed = [one for one in read.failed if one["id"] not in held_out]
    require_some([one for one in read.sources if not one.is_held_out], failed)
    if held_out:
        failed = [one for one in read.failed if one["id"] in held_out]
        require_some([one for one in read.sources if one.is_held_out], failed)


def options_of(parameters: SetupParameters, config: PretrainedConfig) -> DatasetOptions:
    """The part of the parameters that decides about the examples, none of which is longer than the model can read."""
    return DatasetOptions(
        max_length=longest_example(parameters.config.max_length, config),
        chunk_size=parameters.chunk_size,
        chunk_overlap=parameters.chunk_overlap,
        validation_split=0.0 if parameters.validation_document_ids else parameters.validation_split,
        seed=parameters.config.seed,
    )


def _documents(job: ClaimedJob, parameters: SetupParameters) -> list[Document]:
    """The rows of the wanted documents, each once; raises `DocumentNotFound`."""
    held_out = parameters.validation_document_ids or ()
    with job.database.read() as session:
        documents = DocumentRepository(session)
        wanted = parameters.document_ids
        ids = documents.all_ids(job.claim.project_id) if wanted is None else wanted
        return [documents.get(job.claim.project_id, one) for one in dict.fromkeys([*ids, *held_out])]


def _read_documents(
    job: ClaimedJob,
    parameters: SetupParameters,
    settings: Settings,
    storage: Storage,
    should_stop: Callable[[], bool],
) -> ReadDocuments:
    """Extracts one document after the other; one that fails is marked and does not disturb the others."""
    read, documents = ReadDocuments([], []), _documents(job, parameters)
    limits = ExtractionLimits(settings.extraction_timeout_seconds, settings.extraction_memory_bytes)
    DiskRoom.of(settings).require(_SPACE_PER_BYTE * sum(one.size_bytes for one in documents), "The setup")
    for number, document in enumerate(documents):
        if should_stop():
            break
        job.report({"documents_done": number, "documents": len(documents)})
        is_held_out = document.id in (parameters.validation_document_ids or ())
        job.log(f"Validating {'validation' if is_held_out else 'training'} file: {document.filename}")
        try:
            text = text_of(document, limits, storage)
        except DocumentError as error:
            read.failed.append(failure(document.id, document.filename, error))
            _mark_failed(job, document, error)
            continue
        title = title_of(document.filename)
        read.sources.append(SourceDocument(document.id, document.sha256, title, text, is_held_out))
        with job.database.write() as session:
            DocumentRepository(session).mark_extracted(document.id)
    else:
        job.report({"documents_done": len(documents), "documents": len(documents)})
    return read


def text_of(document: Document, limits: ExtractionLimits, storage: Storage) -> ExtractedText:
    """What the document says, from its file or from what was read of it before. Raises a `DocumentError`."""
    cache = TextCache(storage)
    text = cache.find(document.sha256, document.kind)
    if text is None:
        _check_bytes(document, storage)
        text = extract(document.kind, storage.document(document.id), limits)
        cache.keep(document.sha256, document.kind, text)
    return text


def _check_bytes(document: Document, storage: Storage) -> None:
    """Raises `CorruptDocument` unless the file is, byte for byte, what was uploaded."""
    path = storage.document(document.id)
    if not path.is_file() or sha256_of(path) != document.sha256:
        raise CorruptDocument("The file is not what was uploaded any more; upload it again.")


def _mark_failed(job: ClaimedJob, document: Document, error: DocumentError) -> None:
    with job.database.write() as session:
        DocumentRepository(session).mark_failed(document.id, error)
    job.log(f"Skipped {document.filename}: {error.detail}", level="warn", data={"code": error.code})


def _publish(dataset: BuiltDataset, storage: Storage, model: str, options: DatasetOptions) -> str:
    """Moves the complete folder to its final place; returns the dataset's id."""
    dataset_id = new_id("dataset-")
    staged = storage.stage()
    try:
        save(dataset, staged, model, options)
        publish_folder(staged, storage.dataset(dataset_id))
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    return dataset_id


def _record(
    job: ClaimedJob, storage: Storage, dataset: BuiltDataset, dataset_id: str, model: str, read: ReadDocuments
) -> None:
    """Enters the dataset and ends the job at once. The files of an attempt that lost its claim are removed."""
    statistics: dict[str, Any] = asdict(dataset.statistics)
    held_out = [one.id for one in read.sources if one.is_held_out]
    if held_out:  # the lineage names them beside the others, and here what they were for
        statistics["validation_document_ids"] = held_out
    row = Dataset(
        id=dataset_id,
        project_id=job.claim.project_id,
        job_id=job.claim.job_id,
        fingerprint=dataset.fingerprint,
        base_model=model,
        statistics=statistics,
    )
    result: dict[str, Any] = {"dataset_id": dataset_id, **statistics, "failed_documents": read.failed}
    try:
        with job.database.write() as session:
            jobs = JobRepository(session)
            message = f"Files validated: {dataset.statistics.examples} examples of {len(read.sources)} documents"
            jobs.add_event(job.claim, type="message", level="info", message=message, data=statistics)
            jobs.succeed(job.claim, result)
            DatasetRepository(session).add(row, [one.id for one in read.sources])
    except Superseded:
        storage.withdraw(storage.dataset(dataset_id))
        raise
