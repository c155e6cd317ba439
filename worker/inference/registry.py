"""Who answers a question: the adapter version it asks for, or, and then it says why, the base model."""

from __future__ import annotations

import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

from shared.database import Database
from shared.errors import (
    AdapterBroken,
    BaseModelError,
    DatabaseUnavailable,
    FinetunedError,
    ModelNotFound,
    NotFound,
)
from shared.messages import Question
from shared.models import AdapterVersion, ModelCheckpoint
from shared.repositories.adapters import AdapterRepository
from shared.repositories.checkpoints import ModelCheckpointRepository
from shared.storage import Storage
from worker.adapter_files import check_files
from worker.base_models.formats import PromptFormat
from worker.base_models.loading import load_tokenizer
from worker.inference.sequence import AdapterFiles

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

log = logging.getLogger(__name__)

MAX_ASKED = 8  # adapters whose new versions are made ready before a question comes
MAX_OPEN = 64  # verified versions whose tokenizers are kept
VERIFY_AGAIN_SECONDS = 5.0  # a broken version's files are not hashed for every question


@dataclass(frozen=True)
class ServedVersion:
    """An adapter version whose files were verified, with the tokenizer and format that it was trained with. `number`
    None: no version, but a checkpoint of the training of one."""

    name: str
    number: int | None
    files: AdapterFiles
    prompt_format: PromptFormat
    tokenizer: PreTrainedTokenizerBase


@dataclass(frozen=True)
class Responder:
    """Who answers: a base model, with an adapter version or alone. `fallback_reason` says why the wanted version
    does not."""

    model: str
    version: ServedVersion | None = None
    fallback_reason: str | None = None

    @property
    def is_fallback(self) -> bool:
        """Whether the base model answers in place of an adapter; an earlier version of it is no fallback."""
        return self.version is None and self.fallback_reason is not None


class Registry:
    """Looks the version up for each question, so that a promotion is seen at once. May be called from any thread.

    Where the live version is broken, the latest whole one that was live before goes on answering.
    """

    def __init__(
        self,
        database: Database,
        storage: Storage,
        *,
        allows_fallback: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self._storage = storage
        self._allows_fallback = allows_fallback
        self._clock = clock
        self._lock = threading.Lock()
        self._open: OrderedDict[str, ServedVersion] = OrderedDict()  # by version id, least recently used first
        self._condemned: dict[str, str] = {}
        self._failed: dict[str, tuple[float, str]] = {}  # when a version may be verified again, and why it failed
        self._asked: OrderedDict[tuple[str, str], None] = OrderedDict()  # projects and names, the latest last

    def responder_for(self, question: Question) -> Responder:
        """Raises an error of the tree if the adapter cannot answer and the base model may not."""
        try:
            return self._wanted(question)
        except (NotFound, AdapterBroken) as error:
            if not (question.fallback and self._allows_fallback):
                raise
            reason = f"{error.detail} The base model '{question.model}' answered."
            return Responder(question.model, fallback_reason=reason)

    def _wanted(self, question: Question) -> Responder:
        if question.checkpoint is not None:
            return self._checkpoint(question.project_id, question.checkpoint)
        if question.adapter is None:
            return Responder(question.model)
        self._remember(question.project_id, question.adapter)
        return self._adapted(question.project_id, question.adapter, question.version)

    def condemn(self, version_id: str, error: FinetunedError) -> None:
        """Takes a version out whose files are whole and which still does not load."""
        with self._lock:
            self._condemned[version_id] = error.detail
            self._open.pop(version_id, None)
        self._mark(version_id, error)

    def live_responders(self) -> list[Responder]:
        """The live versions of the adapters that were asked for lately, where there are any."""
        with self._lock:
            names = list(self._asked)
        found = []
        for project_id, name in names:
            with suppress(NotFound, AdapterBroken):
                found.append(self._adapted(project_id, name, None))
        return found

    def _remember(self, project_id: str, name: str) -> None:
        with self._lock:
            self._asked[project_id, name] = None
            self._asked.move_to_end((project_id, name))
            while len(self._asked) > MAX_ASKED:
                self._asked.popitem(last=False)

    def _adapted(self, project_id: str, name: str, number: int | None) -> Responder:
        with self._database.read() as session:
            row = AdapterRepository(session).resolve(project_id, name, number)
        try:
            return Responder(row.base_model, self._opened(row, name))
        except AdapterBroken as error:
            if self._is_deleted(row):  # after it was looked up: whoever is meant by now answers
                return self._adapted(project_id, name, number)
            earlier = self._earlier(project_id, name, row, error) if number is None else None
            if earlier is None:
                raise
            return earlier

    def _is_deleted(self, version: AdapterVersion) -> bool:
        with self._database.read() as session:
            return AdapterRepository(session).is_deleted(version.id)

    def _checkpoint(self, project_id: str, checkpoint_id: str) -> Responder:
        with self._database.read() as session:
            try:
                row = ModelCheckpointRepository(session).get(project_id, checkpoint_id)
            except NotFound as error:
                raise ModelNotFound("This checkpoint is not kept any more; GET /v1/models lists what is.") from error
        return Responder(row.base_model, self._opened(row, row.adapter))

    def _earlier(self, project_id: str, name: str, live: AdapterVersion, error: AdapterBroken) -> Responder | None:
        """The version that goes on in place of a broken live one."""
        with self._database.read() as session:
            adapters = AdapterRepository(session)
            rows = adapters.earlier(adapters.get(project_id, name))
        for row in rows:
            with suppress(AdapterBroken):
                reason = (
                    f"Version {live.number} of '{name}' cannot be served: {error.detail} "
                    f"Version {row.number}, which was live before, answered."
                )
                return Responder(row.base_model, self._opened(row, name), reason)
        return None

    def _opened(self, row: AdapterVersion | ModelCheckpoint, name: str) -> ServedVersion:
        with self._lock:
            self._refuse_failed(row.id)
            if row.id in self._open:
                self._open.move_to_end(row.id)
                return self._open[row.id]
        try:
            version = self._verified(row.id, name, row.number if isinstance(row, AdapterVersion) else None)
        except AdapterBroken as error:
            with self._lock:
                self._failed[row.id] = (self._clock() + VERIFY_AGAIN_SECONDS, error.detail)
            if _broken_reason(row) is None:
                self._mark(row.id, error)
            raise
        if _broken_reason(row) is not None:  # it was a passing trouble (a volume that was away)
            self._mark(row.id, None)
        with self._lock:
            self._failed.pop(row.id, None)
            self._open[row.id] = version
            while len(self._open) > MAX_OPEN:
                self._open.popitem(last=False)
        return version

    def _refuse_failed(self, version_id: str) -> None:
        if version_id in self._condemned:
            raise AdapterBroken(self._condemned[version_id])
        retry_at, detail = self._failed.get(version_id, (0.0, ""))
        if self._clock() < retry_at:
            raise AdapterBroken(detail)

    def _verified(self, version_id: str, name: str, number: int | None) -> ServedVersion:
        """Compares every hash, so it runs once a version as long as the version stays in memory."""
        folder = self._storage.version(version_id)
        manifest = check_files(folder, version_id)
        try:
            tokenizer = load_tokenizer(str(folder))
            prompt_format = PromptFormat(manifest.prompt_format)
        except (BaseModelError, ValueError) as error:
            raise AdapterBroken("The adapter's tokenizer or prompt format cannot be read; train again.") from error
        return ServedVersion(name, number, AdapterFiles(version_id, folder), prompt_format, tokenizer)

    def _mark(self, version_id: str, error: FinetunedError | None) -> None:
        log.warning("version %s: %s", version_id, "can be served again" if error is None else error.detail)
        try:
            with self._database.write() as session:
                AdapterRepository(session).mark_broken(version_id, None if error is None else error.detail)
        except DatabaseUnavailable:  # only the status misses it
            log.warning("version %s could not be marked", version_id)


def _broken_reason(row: AdapterVersion | ModelCheckpoint) -> str | None:
    """What was noted; of checkpoints nothing is."""
    return row.broken_reason if isinstance(row, AdapterVersion) else None
