"""The HTTP service: `create_app` puts its parts together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from api.adapters.endpoints import router as adapters
from api.answers.endpoints import router as answers
from api.answers.records import router as answer_records
from api.batches.endpoints import router as batches
from api.documents.endpoints import router as documents
from api.errors import ERROR_RESPONSES, add_error_handlers
from api.fine_tuning.endpoints import router as fine_tuning
from api.health.endpoints import router as health
from api.jobs.endpoints import router as jobs
from api.metrics.endpoints import router as metrics
from api.middleware import BodyLimit, RequestId, SameSite
from api.models.endpoints import router as models
from api.root import router as root
from api.services import open_services
from shared.settings import Settings, get_settings

ROUTERS = (root, documents, fine_tuning, jobs, batches, adapters, answers, answer_records, models, health, metrics)
_LARGEST_BODY = 1024 * 1024  # of anything but an upload
_MULTIPART_OVERHEAD = 64 * 1024  # boundaries and headers around an upload's files


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application; `settings` None reads them from the environment (`uvicorn --factory api.main:create_app`)."""
    settings = settings or get_settings()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(settings) as services:
            app.state.services = services
            yield

    app = FastAPI(title="finetuned", version=version("finetuned"), lifespan=lifespan, responses=ERROR_RESPONSES)
    for router in ROUTERS:
        app.include_router(router)
    add_error_handlers(app)
    upload = settings.max_upload_bytes * settings.max_files_per_upload + _MULTIPART_OVERHEAD
    app.add_middleware(BodyLimit, default=_LARGEST_BODY, by_path={"/documents": upload})
    app.add_middleware(SameSite, allowed_hosts={*settings.allowed_hosts, settings.host})
    app.add_middleware(RequestId)  # added last, so outermost: errors of the others carry the id too
    return app
