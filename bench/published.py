"""Adapters of the demo model that a running stack serves, without a training: published as a worker publishes."""

from __future__ import annotations

from collections.abc import Sequence

from bench.adapters import random_adapters
from bench.models import Setting, prepare_process
from shared.base_models import DEMO_MODEL
from shared.database import Database
from shared.ids import new_id
from shared.models import AdapterVersion
from shared.repositories.adapters import AdapterRepository
from shared.settings import Settings
from shared.storage import Storage
from worker.base_models.formats import format_of
from worker.base_models.loading import load_model, load_tokenizer
from worker.finetuning.publication import Lineage, stage

PROJECT = "default"


def publish_adapters(settings: Settings, names: Sequence[str]) -> None:
    """A new version of each name, with random weights of its own, and live; a name may come several times."""
    prepare_process(Setting(num_threads=1))
    storage, database = Storage(settings.data_dir), Database(settings.resolved_database_url)
    model, tokenizer = load_model(DEMO_MODEL), load_tokenizer(DEMO_MODEL)
    style = format_of(model.config, tokenizer)
    for name, adapted in zip(names, random_adapters(model, len(names)), strict=True):
        version_id = new_id("version-")
        lineage = Lineage(DEMO_MODEL, style, "0" * 64, {}, {}, job_id=None, created_at=0.0)
        stage(adapted, tokenizer, storage.version(version_id), lineage)
        row = AdapterVersion(id=version_id, base_model=DEMO_MODEL, metrics={}, config={}, size_bytes=1)
        with database.write() as session:
            AdapterRepository(session).publish(PROJECT, name, row)
    database.close()
