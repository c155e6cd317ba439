"""Who may do what: one table of all routes, and the one dependency that looks every request up in it."""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Final, Literal, cast

from starlette.datastructures import Headers
from starlette.requests import Request, cookie_parser

from api.keys.ring import KEYLESS, Caller
from api.services import Services
from shared.api_keys import Scope
from shared.errors import InsufficientScope, InvalidApiKey

Public = Literal["public"]
Route = tuple[str, str]

SESSION_COOKIE: Final = "finetuned_session"
SAFE_METHODS: Final = ("GET", "HEAD", "OPTIONS")

_READ: Final[Scope] = "read"
_QUERY: Final[Scope] = "query"
_TRAIN: Final[Scope] = "train"
_ADMIN: Final[Scope] = "admin"
_OPERATOR: Final[Scope] = "operator"  # whatever shows or changes more than the key's own project

# Method and path of every route, and the scope that it takes. A route that is missing here is refused, and a test
# fails for it. `/docs`, `/openapi.json` and the pages' files in `/ui/` belong to no project and are served without a
# question.
SCOPES: Mapping[Route, Scope | Public] = {
    ("GET", "/"): "public",
    ("POST", "/session"): "public",  # looks at the key that it is sent
    ("GET", "/session"): "public",
    ("DELETE", "/session"): "public",
    ("GET", "/health/live"): "public",
    ("GET", "/health/ready"): "public",
    ("GET", "/metrics"): _OPERATOR,
    ("GET", "/maintenance/doctor"): _OPERATOR,
    ("POST", "/maintenance/doctor"): _OPERATOR,
    ("POST", "/keys"): _ADMIN,
    ("GET", "/keys"): _ADMIN,
    ("DELETE", "/keys/{key_id}"): _ADMIN,
    ("POST", "/webhooks"): _ADMIN,
    ("GET", "/webhooks"): _ADMIN,
    ("GET", "/webhooks/{webhook_id}"): _ADMIN,
    ("DELETE", "/webhooks/{webhook_id}"): _ADMIN,
    ("GET", "/webhooks/{webhook_id}/deliveries"): _ADMIN,
    # Documents and files
    ("POST", "/documents"): _TRAIN,
    ("GET", "/documents"): _READ,
    ("GET", "/documents/{document_id}"): _READ,
    ("GET", "/documents/{document_id}/content"): _READ,
    ("GET", "/documents/{document_id}/chunks"): _READ,
    ("DELETE", "/documents/{document_id}"): _TRAIN,
    ("POST", "/v1/files"): _TRAIN,
    ("GET", "/v1/files"): _READ,
    ("GET", "/v1/files/{file_id}"): _READ,
    ("GET", "/v1/files/{file_id}/content"): _READ,
    ("DELETE", "/v1/files/{file_id}"): _TRAIN,
    ("POST", "/v1/uploads"): _TRAIN,
    ("POST", "/v1/uploads/{upload_id}/parts"): _TRAIN,
    ("POST", "/v1/uploads/{upload_id}/complete"): _TRAIN,
    ("POST", "/v1/uploads/{upload_id}/cancel"): _TRAIN,
    # Training
    ("POST", "/fine-tuning/setup"): _TRAIN,
    ("POST", "/fine-tuning/estimate"): _READ,
    ("POST", "/fine-tuning/train"): _TRAIN,
    ("GET", "/fine-tuning/status"): _READ,
    ("GET", "/fine-tuning/jobs"): _READ,
    ("GET", "/fine-tuning/jobs/{job_id}"): _READ,
    ("POST", "/fine-tuning/jobs/{job_id}/cancel"): _TRAIN,
    ("POST", "/fine-tuning/jobs/{job_id}/pause"): _TRAIN,
    ("POST", "/fine-tuning/jobs/{job_id}/resume"): _TRAIN,
    ("GET", "/fine-tuning/jobs/{job_id}/events"): _READ,
    ("GET", "/fine-tuning/jobs/{job_id}/metrics"): _READ,
    ("GET", "/fine-tuning/jobs/{job_id}/output"): _READ,
    ("POST", "/v1/fine_tuning/jobs"): _TRAIN,
    ("GET", "/v1/fine_tuning/jobs"): _READ,
    ("GET", "/v1/fine_tuning/jobs/{fine_tuning_job_id}"): _READ,
    ("POST", "/v1/fine_tuning/jobs/{fine_tuning_job_id}/cancel"): _TRAIN,
    ("POST", "/v1/fine_tuning/jobs/{fine_tuning_job_id}/pause"): _TRAIN,
    ("POST", "/v1/fine_tuning/jobs/{fine_tuning_job_id}/resume"): _TRAIN,
    ("GET", "/v1/fine_tuning/jobs/{fine_tuning_job_id}/events"): _READ,
    ("GET", "/v1/fine_tuning/jobs/{fine_tuning_job_id}/checkpoints"): _READ,
    # What was trained
    ("GET", "/fine-tuning/adapters"): _READ,
    ("GET", "/fine-tuning/adapters/{name}"): _READ,
    ("GET", "/fine-tuning/adapters/{name}/policy"): _READ,
    ("PUT", "/fine-tuning/adapters/{name}/policy"): _TRAIN,
    ("POST", "/fine-tuning/adapters/{name}/promote"): _TRAIN,
    ("POST", "/fine-tuning/adapters/{name}/rollback"): _TRAIN,
    ("POST", "/fine-tuning/adapters/{name}/import"): _TRAIN,
    ("DELETE", "/fine-tuning/adapters/{name}"): _TRAIN,
    ("DELETE", "/fine-tuning/adapters/{name}/versions/{number}"): _TRAIN,
    ("POST", "/fine-tuning/sweeps"): _TRAIN,
    ("GET", "/fine-tuning/sweeps"): _READ,
    ("GET", "/fine-tuning/sweeps/{sweep_id}"): _READ,
    ("POST", "/fine-tuning/exports"): _TRAIN,
    ("GET", "/fine-tuning/exports/{export_id}/content"): _READ,
    ("DELETE", "/fine-tuning/exports/{export_id}"): _TRAIN,
    ("POST", "/fine-tuning/advice"): _TRAIN,
    ("POST", "/fine-tuning/evaluations"): _TRAIN,
    ("GET", "/fine-tuning/evaluations"): _READ,
    ("GET", "/fine-tuning/evaluations/{evaluation_id}"): _READ,
    ("GET", "/fine-tuning/evaluations/{evaluation_id}/examples"): _READ,
    ("GET", "/fine-tuning/evaluations/{evaluation_id}/report"): _READ,
    ("DELETE", "/fine-tuning/evaluations/{evaluation_id}"): _TRAIN,
    ("GET", "/fine-tuning/comparisons"): _READ,
    ("GET", "/models"): _READ,
    ("GET", "/v1/models"): _READ,
    ("GET", "/v1/models/{model:path}"): _READ,
    ("DELETE", "/v1/models/{model:path}"): _TRAIN,
    # Questions
    ("GET", "/monitoring"): _READ,
    ("POST", "/query"): _QUERY,
    ("POST", "/retrieval/search"): _QUERY,
    ("POST", "/fine-tuning/query"): _QUERY,
    ("GET", "/fine-tuning/answers"): _READ,
    ("GET", "/fine-tuning/answers/export"): _READ,
    ("POST", "/fine-tuning/answers/{answer_id}/feedback"): _QUERY,
    ("POST", "/v1/chat/completions"): _QUERY,
    ("POST", "/v1/completions"): _QUERY,
    ("POST", "/fine-tuning/batches"): _QUERY,
    ("POST", "/v1/batches"): _QUERY,
    ("GET", "/v1/batches"): _READ,
    ("GET", "/v1/batches/{batch_id}"): _READ,
    ("POST", "/v1/batches/{batch_id}/cancel"): _QUERY,
}

_NO_KEY = "This service needs an API key; send it as `Authorization: Bearer …`."
_NOT_YET = (
    "Without an API key only the machine itself is served: create one there with `finetuned keys create`, "
    "and send it as `Authorization: Bearer …`."
)
_NOT_OPERATOR = (
    "This shows all projects and takes a key with the scope operator; `python -m api.keys create --scope operator "
    "--name NAME` makes one, on the service's machine."
)
_UNLISTED = "Nobody may use this route: it has no entry in the table of scopes."


async def authorize(request: Request) -> Caller:
    """Who asks, if he may. Async, so that it costs no thread; what it knows of keys is at most a second old."""
    scope = request.app.state.scopes.get((request.method, request.scope["route"].path))
    if scope == "public":
        return Caller(KEYLESS.project, frozenset())
    if scope is None:
        raise InsufficientScope(_UNLISTED)
    services = cast(Services, request.app.state.services)
    caller = await caller_of(request, services)
    if caller is None:
        raise InvalidApiKey(_NO_KEY if secret_of(request.method, request.headers) is None else None)
    if not is_served(caller, request, services):
        raise InvalidApiKey(_NOT_YET)
    if not caller.may(scope):
        missing = f"This API key has not the scope {scope}; use one that has."
        raise InsufficientScope(_NOT_OPERATOR if scope == "operator" else missing)
    return caller


async def caller_of(request: Request, services: Services) -> Caller | None:
    """Whose key the request shows."""
    return await services.keys.caller(secret_of(request.method, request.headers))


def is_served(caller: Caller, request: Request, services: Services) -> bool:
    """Whether he is served at all: without a key, by default, the machine itself alone."""
    return caller.key_id is not None or services.settings.allow_keyless or is_local(request)


def secret_of(method: str, headers: Headers) -> str | None:
    """What a request shows as its key: a bearer, else the cookie of our own pages' session.

    A browser adds the cookie by itself, so a change takes more: an `Origin`, which every browser sends with changes,
    and which `SameSite` in `api/middleware.py` has compared with our host. `SameSite=Strict` alone would let in pages
    of other ports of this machine."""
    if "authorization" in headers:
        return bearer_of(headers)
    if method not in SAFE_METHODS and "origin" not in headers:
        return None
    return cookie_parser(headers.get("cookie", "")).get(SESSION_COOKIE) or None


def bearer_of(headers: Headers) -> str | None:
    """What a program shows as its key."""
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    return secret.strip() or None if scheme.lower() == "bearer" else None


def is_local(request: Request) -> bool:
    """Whether it comes from this machine. What has no address comes over a Unix socket, or from within the process."""
    return is_loopback(request.client.host) is not False if request.client else True


def is_loopback(host: str) -> bool | None:
    """Whether an address is this machine's own, for itself alone; None for what is no address."""
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback
