"""The error tree: every failure that a client or a job can show, with its code, status and cure.

FinetunedError                       500 internal_error
├── InvalidRequest                   422 invalid_request
│   ├── ModelNotAllowed              422 model_not_allowed
│   └── IdempotencyKeyReused         422 idempotency_key_reused
├── NotFound                         404 not_found
│   ├── DocumentNotFound             404 document_not_found
│   ├── JobNotFound                  404 job_not_found
│   ├── AdapterNotFound              404 adapter_not_found
│   ├── VersionNotFound              404 version_not_found
│   ├── ModelNotFound                404 model_not_found
│   ├── AnswerNotFound               404 answer_not_found
│   └── KeyNotFound                  404 key_not_found
├── InvalidApiKey                    401 invalid_api_key
├── InsufficientScope                403 insufficient_scope
├── IllegalTransition                409 illegal_transition
├── VersionInUse                     409 version_in_use
├── TextsNotKept                     409 texts_not_kept
├── DocumentError                    422 document_error
│   ├── EmptyDocument                422 document_empty
│   ├── DocumentTooLarge             413 document_too_large
│   ├── UnsupportedDocument          415 document_unsupported
│   ├── MislabelledDocument          415 document_mislabelled
│   ├── EncryptedDocument            422 document_encrypted
│   ├── CorruptDocument              422 document_corrupt
│   └── ExtractionLimit              422 extraction_limit
├── DatasetError                     422 dataset_error
│   ├── NoDocuments                  422 no_documents
│   ├── TooFewExamples               422 too_few_examples
│   ├── NothingToLearn               422 nothing_to_learn
│   └── SetupFailed                  422 setup_failed
├── BaseModelError                   422 base_model_error
│   ├── BaseModelNotFound            422 base_model_not_found
│   ├── BaseModelOffline             503 base_model_offline
│   └── BaseModelUnsupported         422 base_model_unsupported
├── TrainingError                    500 training_error
│   ├── TargetModulesNotFound        422 target_modules_not_found
│   ├── DiskFull                     507 disk_full
│   ├── OutOfMemory                  507 out_of_memory
│   ├── NonFiniteLoss                422 non_finite_loss
│   ├── TrackerNotInstalled          422 tracker_not_installed
│   ├── PublicationRefused           500 publication_refused
│   ├── SweepFailed                  422 sweep_failed
│   ├── TrainerCrashed               500 trainer_crashed
│   └── TrainerStalled               500 trainer_stalled
├── ImportRefused                    422 import_refused
├── ExportError                      500 export_error
│   ├── ConverterNotInstalled        422 converter_not_installed
│   ├── HubRefused                   422 hub_refused
│   └── HubUnavailable               503 hub_unavailable
├── AdapterBroken                    409 adapter_broken
├── PromptTooLong                    422 prompt_too_long
│   └── ContextLengthExceeded        422 context_length_exceeded
├── Unavailable                      503 unavailable
│   ├── DatabaseUnavailable          503 database_unavailable
│   ├── BrokerUnavailable            503 broker_unavailable
│   ├── NoInferenceWorker            503 no_inference_worker
│   ├── WorkerLost                   503 worker_lost
│   ├── Stopping                     503 stopping
│   ├── IndexUnavailable             503 index_unavailable
│   ├── EndpointUnavailable          503 endpoint_unavailable
│   └── AnswerTimeout                504 answer_timeout
├── NothingIndexed                   422 nothing_indexed
├── BatchExpired                     504 batch_expired
├── QueueFull                        429 queue_full
│   └── JobQueueFull                 429 job_queue_full
├── UploadLimitReached               429 upload_limit_reached
├── RateLimited                      429 rate_limit_exceeded
└── Superseded                       409 superseded      (internal: another attempt owns the job)
"""

from __future__ import annotations


class FinetunedError(Exception):
    """Base of the tree. `detail` is one sentence for the client: never a path, a secret or a trace."""

    code = "internal_error"
    status = 500
    cure = "Something went wrong on our side; try again, and look at the server's log if it stays."
    retry_after_seconds: float | None = None  # when trying again is likely to help, where that is known

    def __init__(self, detail: str | None = None, *, param: str | None = None) -> None:
        self.detail = detail or self.cure
        self.param = param
        super().__init__(self.detail)

    def __reduce__(self) -> tuple[object, ...]:
        return _rebuild, (type(self), self.detail, self.param)


def _rebuild(kind: type[FinetunedError], detail: str, param: str | None) -> FinetunedError:
    return kind(detail, param=param)


class InvalidRequest(FinetunedError):
    code, status = "invalid_request", 422
    cure = "The request is not valid; see the API reference."


class ModelNotAllowed(InvalidRequest):
    code = "model_not_allowed"
    cure = "This base model is not in FINETUNED_ALLOWED_MODELS; add it there or choose one from GET /models."


class IdempotencyKeyReused(InvalidRequest):
    code = "idempotency_key_reused"
    cure = "This Idempotency-Key was used with another request; use a new key."


class NotFound(FinetunedError):
    code, status = "not_found", 404
    cure = "There is nothing here; check the address."


class DocumentNotFound(NotFound):
    code = "document_not_found"
    cure = "No such document; GET /documents lists them."


class JobNotFound(NotFound):
    code = "job_not_found"
    cure = "No such job; GET /fine-tuning/jobs lists them."


class AdapterNotFound(NotFound):
    code = "adapter_not_found"
    cure = "No such adapter; GET /fine-tuning/adapters lists them."


class VersionNotFound(NotFound):
    code = "version_not_found"
    cure = "This adapter has no such version; GET /fine-tuning/adapters/{name} lists them."


class ModelNotFound(NotFound):
    code = "model_not_found"
    cure = "The model does not exist or you do not have access to it; GET /v1/models lists them."


class AnswerNotFound(NotFound):
    code = "answer_not_found"
    cure = "No such answer, or it is not kept any more; GET /fine-tuning/answers lists them."


class KeyNotFound(NotFound):
    code = "key_not_found"
    cure = "No such key; GET /keys lists them."


class InvalidApiKey(FinetunedError):
    code, status = "invalid_api_key", 401
    cure = "Incorrect API key provided: it is not known here, or was revoked."


class InsufficientScope(FinetunedError):
    code, status = "insufficient_scope", 403
    cure = "This API key may not do that; use one with the scope that it takes."


class IllegalTransition(FinetunedError):
    code, status = "illegal_transition", 409
    cure = "The job is not in a state that allows this."


class VersionInUse(FinetunedError):
    code, status = "version_in_use", 409
    cure = "This version is live; promote another version first."


class TextsNotKept(FinetunedError):
    code, status = "texts_not_kept", 409
    cure = (
        "Texts of this answer are not kept, so no correction is either: send the thumb alone, or set "
        "FINETUNED_STORE_QUERIES=true for answers to come."
    )


class DocumentError(FinetunedError):
    code, status = "document_error", 422
    cure = "The document cannot be used."


class EmptyDocument(DocumentError):
    code = "document_empty"
    cure = "The document holds no text; a scanned PDF needs text recognition (OCR) first."


class DocumentTooLarge(DocumentError):
    code, status = "document_too_large", 413
    cure = "The document is larger than FINETUNED_MAX_UPLOAD_BYTES; split it or raise the limit."


class UnsupportedDocument(DocumentError):
    code, status = "document_unsupported", 415
    cure = "Only pdf, docx, html, md, txt, csv and jsonl documents can be used; convert it to one of these."


class MislabelledDocument(DocumentError):
    code, status = "document_mislabelled", 415
    cure = "The content is not what the file's ending says; rename or convert it."


class EncryptedDocument(DocumentError):
    code = "document_encrypted"
    cure = "The document is encrypted; remove its password and upload it again."


class CorruptDocument(DocumentError):
    code = "document_corrupt"
    cure = "The document is damaged and cannot be read; export it again and upload the new file."


class ExtractionLimit(DocumentError):
    code = "extraction_limit"
    cure = "Reading the document took too much time or memory; split it into smaller files."


class DatasetError(FinetunedError):
    code, status = "dataset_error", 422
    cure = "No dataset can be made of these documents."


class NoDocuments(DatasetError):
    code = "no_documents"
    cure = "There is no document to learn from; upload some with POST /documents."


class TooFewExamples(DatasetError):
    code = "too_few_examples"
    cure = "The documents give too few examples to train on; upload more text or lower chunk_size."


class NothingToLearn(DatasetError):
    code = "nothing_to_learn"
    cure = "Every label is masked, so nothing can be learned; raise max_length or check the answers."


class SetupFailed(DatasetError):
    code = "setup_failed"
    cure = "The job that this one waited for did not succeed; look at its error."


class BaseModelError(FinetunedError):
    code, status = "base_model_error", 422
    cure = "The base model cannot be used."


class BaseModelNotFound(BaseModelError):
    code = "base_model_not_found"
    cure = "The hub knows no such model; check its name, or your access to it."


class BaseModelOffline(BaseModelError):
    code, status = "base_model_offline", 503
    cure = (
        "The base model is not on disk and the hub cannot be reached; connect once, or put the model "
        "in a folder and name that folder, or use the model 'demo'."
    )


class BaseModelUnsupported(BaseModelError):
    code = "base_model_unsupported"
    cure = "Only causal and seq2seq models of transformers can be used."


class TrainingError(FinetunedError):
    code, status = "training_error", 500
    cure = "The training failed; see the job's events."


class TargetModulesNotFound(TrainingError):
    code, status = "target_modules_not_found", 422
    cure = "None of the target modules exists in this model; leave target_modules empty to find them."


class DiskFull(TrainingError):
    code, status = "disk_full", 507
    cure = "There is not enough disk space; free some and resume or start the job again."


class OutOfMemory(TrainingError):
    code, status = "out_of_memory", 507
    cure = "The training does not fit into memory; lower batch_size or max_length, or use quantization."


class NonFiniteLoss(TrainingError):
    code, status = "non_finite_loss", 422
    cure = "The loss is not a finite number; lower learning_rate or check the data."


class TrackerNotInstalled(TrainingError):
    code, status = "tracker_not_installed", 422
    cure = "A tracker is not installed on the training worker; install it there or leave it out of trackers."


class PublicationRefused(TrainingError):
    code = "publication_refused"
    cure = "The trained adapter failed its verification and was not published."


class SweepFailed(TrainingError):
    code, status = "sweep_failed", 422
    cure = "No trial of the sweep came to anything; mend what its trials' errors name, and start another."


class TrainerCrashed(TrainingError):
    code = "trainer_crashed"
    cure = "The trainer died several times; see the worker's log, and try a smaller batch_size or max_length."


class TrainerStalled(TrainingError):
    code = "trainer_stalled"
    cure = "The trainer made no progress for too long and was stopped; see the worker's log."


class ImportRefused(FinetunedError):
    code, status = "import_refused", 422
    cure = "These files are no LoRA adapter in PEFT's format that can be served."


class ExportError(FinetunedError):
    code, status = "export_error", 500
    cure = "The export failed; see the worker's log."


class ConverterNotInstalled(ExportError):
    code, status = "converter_not_installed", 422
    cure = (
        "No worker has llama.cpp's converter; install llama.cpp with its Python requirements there, and put "
        "convert_hf_to_gguf.py on the PATH or name it in FINETUNED_GGUF_CONVERTER."
    )


class HubRefused(ExportError):
    code, status = "hub_refused", 422
    cure = "The hub refused the upload; set HF_TOKEN on the worker to a token that may write to this repository."


class HubUnavailable(ExportError):
    code, status = "hub_unavailable", 503
    cure = "The hub cannot be reached from the worker; connect it, or export with format 'peft' and upload the file."


class AdapterBroken(FinetunedError):
    code, status = "adapter_broken", 409
    cure = "The adapter's files are missing or damaged; promote another version or train again."


class PromptTooLong(FinetunedError):
    code, status = "prompt_too_long", 422
    cure = "The question does not fit into the model's context; shorten it."


class ContextLengthExceeded(PromptTooLong):
    """The same in OpenAI's word, which its users' programs look for."""

    code = "context_length_exceeded"


class Unavailable(FinetunedError):
    code, status = "unavailable", 503
    cure = "A part of the service is not available; try again in a moment."


class DatabaseUnavailable(Unavailable):
    code = "database_unavailable"
    cure = "The database cannot be reached; try again in a moment."


class BrokerUnavailable(Unavailable):
    code = "broker_unavailable"
    cure = "Redis cannot be reached; jobs are accepted, but questions must wait; try again in a moment."


class NoInferenceWorker(Unavailable):
    code = "no_inference_worker"
    cure = "No inference worker is running; start one and ask again."


class WorkerLost(Unavailable):
    code = "worker_lost"
    cure = "The worker stopped in the middle of the answer; ask again."


class Stopping(Unavailable):
    code = "stopping"
    cure = "The service is being stopped before the answer is complete; ask again in a moment."


class IndexUnavailable(Unavailable):
    code = "index_unavailable"
    cure = "The index of the documents cannot be read; look at the retrieval worker's log, and try again in a moment."


class EndpointUnavailable(Unavailable):
    code = "endpoint_unavailable"
    cure = "The endpoint at OPENAI_BASE_URL does not answer as it should; look at its log, and try again."


class AnswerTimeout(Unavailable):
    code, status = "answer_timeout", 504
    cure = "The answer was not ready by its deadline; ask again, or for fewer tokens."


class NothingIndexed(FinetunedError):
    code, status = "nothing_indexed", 422
    cure = "No document is indexed yet; upload some with POST /documents."


class BatchExpired(FinetunedError):
    code, status = "batch_expired", 504
    cure = "The completion window is over; what was answered in time is in the output file, send the rest again."


class QueueFull(FinetunedError):
    code, status = "queue_full", 429
    cure = "Too many questions are waiting; wait as long as Retry-After says."

    def __init__(
        self, detail: str | None = None, *, param: str | None = None, retry_after_seconds: float | None = None
    ) -> None:
        super().__init__(detail, param=param)
        self.retry_after_seconds = retry_after_seconds


class JobQueueFull(QueueFull):
    code = "job_queue_full"
    cure = "Too many of your jobs are queued; wait until some have begun, or cancel some."
    retry_after_seconds = 15.0


class UploadLimitReached(FinetunedError):
    code, status = "upload_limit_reached", 429
    cure = "No more bytes can be taken from you today; go on when an hour has passed, or later."
    retry_after_seconds = 3600.0


class RateLimited(FinetunedError):
    code, status = "rate_limit_exceeded", 429
    cure = "Too many requests in too short a time; wait as long as Retry-After says."


class Superseded(FinetunedError):
    code, status = "superseded", 409
    cure = "Another attempt owns this job; this one stops."


def error_by_code(code: str) -> type[FinetunedError]:
    """The class of the tree with this code; `FinetunedError` for an unknown one."""
    pending: list[type[FinetunedError]] = [FinetunedError]
    while pending:
        kind = pending.pop()
        if kind.code == code:
            return kind
        pending.extend(kind.__subclasses__())
    return FinetunedError
