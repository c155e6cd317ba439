"""What brings each error about, and what helps: what the errors' reference says beside the sentence of the class."""

from __future__ import annotations

from collections.abc import Mapping

_TRY_AGAIN = "Send it again after `Retry-After`; programs should wait longer each time."

# The cause and the cure of every code in `shared/errors.py`; a test sees that none is missing.
CAUSES: Mapping[str, tuple[str, str]] = {
    "internal_error": (
        "Something that nobody foresaw, in the API or in a job.",
        "Find the answer's `x-request-id` in the log; send the request again; report it if it stays.",
    ),
    "invalid_request": (
        "A field is unknown, missing, of another type or out of its bounds; `param` or the sentence names it.",
        "Compare the request with the API's reference: unknown fields are refused, so that a typing error is seen.",
    ),
    "model_not_allowed": (
        "The base model is not on the installation's allow-list.",
        "Add its name, a local path or a pattern to `FINETUNED_ALLOWED_MODELS`, and start the processes again.",
    ),
    "idempotency_key_reused": (
        "An `Idempotency-Key` came a second time, with another body.",
        "Make a new key for every new request; repeat the old one only to send the same request again.",
    ),
    "not_found": ("No route has this address.", "Check it against the API's reference."),
    "document_not_found": (
        "The document was deleted, belongs to another project, or never was.",
        "List them: `GET /documents`.",
    ),
    "job_not_found": (
        "The id is wrong, or the job belongs to another project.",
        "List them: `finetuned jobs`.",
    ),
    "adapter_not_found": (
        "Nothing was published under this name in this project.",
        "List them: `finetuned adapters`.",
    ),
    "version_not_found": (
        "The number was never given, or the version was deleted or fell to retention.",
        "List them: `finetuned adapters NAME`; a deleted number is not given out again.",
    ),
    "model_not_found": (
        "The name in `model` is no base model, adapter, version or checkpoint of this project.",
        "List them: `GET /v1/models`; or send `fallback: true` to let the base model answer.",
    ),
    "answer_not_found": (
        "The answer is older than `FINETUNED_ANSWER_RETENTION_DAYS`, or of another project.",
        "Give feedback sooner, or raise the setting.",
    ),
    "key_not_found": ("No key of this project has this id.", "List them: `finetuned keys list`."),
    "invalid_api_key": (
        "A key is needed and none was sent, or it was revoked, or is another installation's.",
        "Send `Authorization: Bearer …`, or set `FINETUNED_API_KEY` for the command. Before there is any key, only the "
        "machine itself is served.",
    ),
    "insufficient_scope": (
        "The key is good, but not for this route.",
        "Take a key with the scope that the sentence names; the API's reference gives that of each route.",
    ),
    "illegal_transition": (
        "The job has ended, or is in a state from which this does not lead: a finished job cannot be cancelled.",
        "Look at its status, `finetuned job ID`, and act on what it is now.",
    ),
    "version_in_use": (
        "The version is live, or an unfinished batch or export names it.",
        "Promote another version, wait for the batch or export, or cancel it.",
    ),
    "texts_not_kept": (
        "A `correction` came, and `FINETUNED_STORE_QUERIES` is off, or was when the answer was given.",
        "Send the thumb without it; for answers to come, turn the setting on for the API and the inference workers.",
    ),
    "document_error": ("The document cannot be used; the sentence says why.", "Mend the file and upload it again."),
    "document_empty": (
        "No text was found: often a PDF of scanned pages, or a page that a script fills.",
        "Run text recognition (OCR) over the scan, or save the text itself.",
    ),
    "document_too_large": (
        "The file is larger than `FINETUNED_MAX_UPLOAD_BYTES`.",
        "Split it, raise the setting, or send it in parts through `/v1/uploads`.",
    ),
    "document_unsupported": (
        "The name ends in something other than pdf, docx, html, md, txt, csv or jsonl.",
        "Convert it to one of these.",
    ),
    "document_mislabelled": (
        "The first bytes are not those of the kind that the name says.",
        "Rename it to what it is, or export it again.",
    ),
    "document_encrypted": ("The file asks for a password.", "Remove the password and upload it again."),
    "document_corrupt": (
        "The file ends too early or breaks its format's rules.",
        "Open it in its own program, save it anew, and upload that.",
    ),
    "extraction_limit": (
        "Reading took more than `FINETUNED_EXTRACTION_TIMEOUT_SECONDS` or `FINETUNED_EXTRACTION_MEMORY_BYTES`.",
        "Split the file, or raise the setting for documents that you trust.",
    ),
    "dataset_error": (
        "The documents give no dataset; the sentence says why.",
        "Look at the setup job's events: `finetuned job ID`.",
    ),
    "no_documents": ("The project has no document, or all named ones were deleted.", "Upload some, then start again."),
    "too_few_examples": (
        "There is too little text to hold something out and learn from the rest.",
        "Upload more, or lower `chunk_size`.",
    ),
    "nothing_to_learn": (
        "`max_length` cuts every answer away, or the answers are empty, so that no token is left to learn.",
        "Raise `max_length`, or look into the answers of the file.",
    ),
    "setup_failed": (
        "A training waits for the setup that makes its dataset, an evaluation may wait for that; what this one "
        "waited for has failed or was cancelled.",
        "Look at that job's error, mend what it names, and start again.",
    ),
    "base_model_error": ("The base model cannot be used; the sentence says why.", "Choose another from `GET /models`."),
    "base_model_not_found": (
        "The hub has no model of this name, or it is gated and the token has no access.",
        "Check the name; for gated models (LLaMA) accept their licence on the hub and set `HF_TOKEN` for the workers.",
    ),
    "base_model_offline": (
        "The model is not on disk and the hub cannot be reached.",
        "Connect once, or put the model into a folder, allow that in `FINETUNED_ALLOWED_MODELS`, and name it; or take "
        "`demo`.",
    ),
    "base_model_unsupported": (
        "The model is neither causal nor seq2seq, needs code of its own, or is a pickle in a local folder.",
        "Take a model that `transformers` knows, in safetensors.",
    ),
    "training_error": ("The training ended for a reason that its events tell.", "Read them: `finetuned job ID`."),
    "target_modules_not_found": (
        "No layer of this model has one of the names in `target_modules`.",
        "Leave the field out, or take names from the list in the sentence.",
    ),
    "sweep_failed": (
        "All trials of a sweep failed, for reasons that it names, or the weights of the best one were deleted.",
        "`finetuned sweeps ID` shows why each failed: narrow the space, or mend what their jobs say; start another.",
    ),
    "disk_full": (
        "Fewer than `FINETUNED_MIN_FREE_BYTES` would stay free, or the third checkpoint in a row could not be written.",
        "Free some space (delete versions and exports, or set `FINETUNED_KEEP_VERSIONS`), then start the job again.",
    ),
    "out_of_memory": (
        "The training does not fit, also after everything that may be lowered was lowered; the sentence says what was.",
        "Lower `max_length` or `lora_rank`, set `allow_4bit`, or take a smaller base model.",
    ),
    "non_finite_loss": (
        "The loss became infinite or no number: mostly a learning rate that is too high.",
        "Lower `learning_rate`, and look for broken examples. The last good checkpoint is kept.",
    ),
    "tracker_not_installed": (
        "`trackers` names a package that the training worker does not have.",
        "Install it there (`tensorboard`, `mlflow`, `wandb`), or leave it out.",
    ),
    "publication_refused": (
        "The trained weights are zero or not finite, change no answer, or do not fit the base model.",
        "Train longer or with a higher `learning_rate`; the events say which check failed.",
    ),
    "trainer_crashed": (
        "The trainer was killed `FINETUNED_MAX_CRASHES` times, by the kernel for memory more often than not.",
        "The sentence says how it died: lower `max_length` or `lora_rank`, or give the machine more memory.",
    ),
    "trainer_stalled": (
        "No step was done for `FINETUNED_STALL_TIMEOUT_SECONDS`.",
        "See the worker's log; on a slow machine raise the setting.",
    ),
    "import_refused": (
        "The files are no LoRA adapter in safetensors that fits the base model, or pack something that is refused.",
        "The sentence names what is wrong; save the adapter with PEFT's `save_pretrained`.",
    ),
    "export_error": ("The export ended for a reason that the worker's log tells.", "See there, and export again."),
    "converter_not_installed": (
        "GGUF is written by llama.cpp's converter, which the setup worker does not have.",
        "Install llama.cpp there and set `FINETUNED_GGUF_CONVERTER`, or export `merged` and convert that elsewhere.",
    ),
    "hub_refused": (
        "The hub did not accept the token for this repository.",
        "Set `HF_TOKEN` on the worker to one that may write there.",
    ),
    "hub_unavailable": (
        "The worker has no way to the hub.",
        "Connect it, or export `peft` and upload the file from elsewhere.",
    ),
    "adapter_broken": (
        "A file of the version is missing, or its SHA-256 is not that of the manifest.",
        "Roll back, or promote another version; `finetuned doctor --deep` lists what is damaged; restore that from a "
        "backup.",
    ),
    "prompt_too_long": (
        "The question alone fills the base model's context.",
        "Shorten it, or take a base model with a longer context.",
    ),
    "context_length_exceeded": (
        "The same under `/v1`, by OpenAI's word.",
        "Shorten the messages, or take a base model with a longer context.",
    ),
    "unavailable": ("A part of the service is away; the sentence says which.", _TRY_AGAIN),
    "database_unavailable": (
        "The database does not answer.",
        f"See that it runs and that `DATABASE_URL` is right. {_TRY_AGAIN}",
    ),
    "broker_unavailable": (
        "Redis does not answer; jobs are kept and begin later, questions cannot travel.",
        f"See that it runs and that `REDIS_URL` is right. {_TRY_AGAIN}",
    ),
    "no_inference_worker": (
        "No inference worker has a fresh heartbeat.",
        "Start one (`finetuned up` does), and look at its log if it ends.",
    ),
    "worker_lost": (
        "The inference worker died after the answer had begun.",
        "Ask again: another worker, or the same one started anew, answers.",
    ),
    "stopping": ("The API is being stopped or restarted.", _TRY_AGAIN),
    "index_unavailable": (
        "The index of the documents cannot be read, or the retrieval worker has not made it yet.",
        f"Look at the retrieval worker's log. {_TRY_AGAIN}",
    ),
    "endpoint_unavailable": (
        "The endpoint at `OPENAI_BASE_URL`, which writes or embeds for `/query`, does not answer.",
        "Look at its log and at `OPENAI_API_KEY`; without the setting our own workers answer.",
    ),
    "answer_timeout": (
        "The answer was not done within `FINETUNED_ANSWER_TIMEOUT_SECONDS`.",
        "Ask for fewer tokens, add inference workers, or raise the setting.",
    ),
    "nothing_indexed": (
        "`backend: rag` was asked for, and no document is indexed.",
        "Upload some; a document is found a moment after its upload.",
    ),
    "batch_expired": (
        "The batch did not end within its completion window.",
        "Its output file has what was answered; send the rest as another batch.",
    ),
    "queue_full": (
        "More than `FINETUNED_MAX_QUEUED_QUESTIONS` questions wait.",
        f"{_TRY_AGAIN} Add inference workers if it stays.",
    ),
    "job_queue_full": (
        "The key, or all callers without one, have `FINETUNED_MAX_QUEUED_JOBS` jobs that wait.",
        "Wait until some have begun, cancel some, or add training workers.",
    ),
    "upload_limit_reached": (
        "The key has uploaded `FINETUNED_UPLOAD_BYTES_PER_DAY` within 24 hours.",
        "Go on later, or raise the limit of the key or the setting.",
    ),
    "rate_limit_exceeded": (
        "More than `FINETUNED_REQUESTS_PER_MINUTE` came from this key or address.",
        f"{_TRY_AGAIN} `x-ratelimit-*` says how many are left.",
    ),
    "superseded": (
        "Another attempt took the job over, as this one was silent for longer than its lease. Clients never see it.",
        "Nothing: the other attempt goes on. If it happens often, the worker's machine freezes or its clock jumps.",
    ),
}
