"""The HTTP service: `create_app` puts its parts together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from importlib.metadata import version

from fastapi import APIRouter, Depends, FastAPI
from starlette.routing import BaseRoute
from starlette.staticfiles import StaticFiles

from api.access import SCOPES, authorize
from api.adapters.endpoints import router as adapters
from api.advice.endpoints import router as advice
from api.answers.endpoints import router as answers
from api.answers.exporting import router as answer_export
from api.answers.records import router as answer_records
from api.batches.endpoints import router as batches
from api.comparisons.endpoints import router as comparisons
from api.completions.endpoints import router as completions
from api.described_keys import describe_keys
from api.documents.endpoints import router as documents
from api.errors import add_error_handlers, error_responses
from api.estimates.endpoints import router as estimates
from api.evaluations.endpoints import router as evaluations
from api.exports.endpoints import router as exports
from api.files.endpoints import router as files
from api.fine_tuning.endpoints import router as fine_tuning
from api.fine_tuning_jobs.endpoints import router as fine_tuning_jobs
from api.health.endpoints import router as health
from api.jobs.endpoints import router as jobs
from api.keys.endpoints import router as keys
from api.maintenance.endpoints import router as maintenance
from api.metrics.endpoints import router as metrics
from api.metrics.requests import CountRequests, RequestMeasures
from api.middleware import BodyLimit, RequestId, SafeHeaders, SameSite
from api.models.endpoints import router as models
from api.monitoring.endpoints import router as monitoring
from api.openai_batches.endpoints import router as openai_batches
from api.openai_models.endpoints import router as openai_models
from api.query.endpoints import router as query
from api.rate_limits import RateLimit
from api.retrieval.endpoints import of_documents as document_chunks
from api.retrieval.endpoints import router as retrieval
from api.root import router as root
from api.safe_headers import PAGES
from api.services import open_services
from api.session.endpoints import router as session
from api.sweeps.endpoints import router as sweeps
from api.tracing import TraceRequests
from api.uploads.endpoints import router as uploads
from api.webhooks.endpoints import router as webhooks
from api.webhooks.sender import WebhookSender
from shared.settings import Settings, get_settings
from shared.tracing import open_traces
from ui import APP

ROUTERS = (  # looked through in this order, for each request: first those that many ask at once
    answers,
    completions,
    query,
    fine_tuning,
    root,
    documents,
    files,
    uploads,
    estimates,
    fine_tuning_jobs,
    jobs,
    batches,
    openai_batches,
    adapters,
    exports,
    sweeps,
    advice,
    evaluations,
    comparisons,
    answer_records,
    answer_export,
    retrieval,
    document_chunks,
    models,
    openai_models,
    webhooks,
    keys,
    session,
    monitoring,
    health,
    maintenance,
    metrics,
)
_DEPENDENCIES = (Depends(authorize),)  # of every route
_LARGEST_BODY = 1024 * 1024  # of anything but an upload
_MULTIPART_OVERHEAD = 64 * 1024  # boundaries and headers around an upload's files


def create_app(settings: Settings | None = None) -> FastAPI:
    """The application; `settings` None reads them from the environment (`uvicorn --factory api.main:create_app`)."""
    settings = settings or get_settings()
    traces = open_traces(settings, "api")

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with open_services(settings) as services, WebhookSender(services.database, settings).running():
            app.state.services = services
            yield
        if traces is not None:
            await asyncio.to_thread(traces.close)

    app = FastAPI(
        title="finetuned",
        version=version("finetuned"),
        lifespan=lifespan,
        dependencies=_DEPENDENCIES,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    app.state.scopes = dict(SCOPES)
    app.router.routes.extend(_routes())
    describe_keys(app)
    app.mount(PAGES, StaticFiles(directory=APP, html=True), name="pages")
    add_error_handlers(app)
    upload = settings.max_upload_bytes * settings.max_files_per_upload + _MULTIPART_OVERHEAD
    one_file = settings.max_upload_bytes + _MULTIPART_OVERHEAD
    largest = {"/documents": upload, "/v1/files": one_file, "/v1/uploads/*/parts": one_file}
    largest["/fine-tuning/adapters/*/import"] = settings.max_import_bytes + _MULTIPART_OVERHEAD
    app.add_middleware(BodyLimit, default=_LARGEST_BODY, by_path=largest)
    app.add_middleware(RateLimit, requests_per_minute=settings.requests_per_minute)
    app.add_middleware(SameSite, allowed_hosts={*settings.allowed_hosts, settings.host})
    app.add_middleware(SafeHeaders)
    if traces is not None:
        app.add_middleware(TraceRequests, traces=traces)
    app.add_middleware(RequestId)  # outside of these: errors of the others carry the id too
    app.state.request_measures = RequestMeasures()
    app.add_middleware(CountRequests, measures=app.state.request_measures)  # added last, so outermost
    return app


@cache
def _routes() -> list[BaseRoute]:
    """Of all resources. What FastAPI makes of them at the first request takes longer than all
    else at a start, and is the same for every application of a process."""
    api = APIRouter(dependencies=_DEPENDENCIES)
    for router in ROUTERS:
        api.include_router(router, responses=error_responses(router.prefix))
    return api.routes
