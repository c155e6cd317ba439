"""What every answer tells browsers: take it for what it says it is, show it in no frame, and keep none of it."""

from __future__ import annotations

import hashlib
import re
from base64 import b64encode
from functools import lru_cache

from fastapi.openapi.docs import get_swagger_ui_html

DOCS = "/docs"
PAGES = "/ui"
_CARRY_NO_DATA = ("/", DOCS, "/openapi.json", "/health/live")
_ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
# The pages run their own files and nothing else; what they draw is text and styles that scripts set, never markup.
_PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
# A report holds what users and models wrote: no script, nothing loaded, and none of our pages' rights.
_REPORT = re.compile(r"/fine-tuning/evaluations/[^/]+/report")
_REPORT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "sandbox"
)
_DATA_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


def safe_headers(path: str) -> dict[str, str]:
    """The headers of an answer at a path."""
    if path == DOCS:
        return {**_ALWAYS, "Content-Security-Policy": _docs_policy()}
    if is_page(path):  # kept, but asked for again: `ETag` answers without the bytes
        return {**_ALWAYS, "Cache-Control": "no-cache", "Content-Security-Policy": _PAGE_POLICY}
    kept = {} if path in _CARRY_NO_DATA else {"Cache-Control": "no-store"}
    policy = _REPORT_POLICY if _REPORT.fullmatch(path) else _DATA_POLICY
    return {**_ALWAYS, **kept, "Content-Security-Policy": policy}


def is_page(path: str) -> bool:
    """Whether it is a file of the pages: the same for everybody."""
    return path == PAGES or path.startswith(f"{PAGES}/")


@lru_cache
def _docs_policy() -> str:
    """The page's own short script, by its hash; the rest from where FastAPI's page takes it."""
    page = get_swagger_ui_html(openapi_url="/openapi.json", title="finetuned - Swagger UI").body
    scripts = re.findall(rb"<script>(.*?)</script>", bytes(page), re.DOTALL)
    hashes = " ".join(f"'sha256-{b64encode(hashlib.sha256(one).digest()).decode()}'" for one in scripts)
    return (
        f"default-src 'none'; script-src https://cdn.jsdelivr.net {hashes}; "
        "style-src https://cdn.jsdelivr.net 'unsafe-inline'; img-src data: https://fastapi.tiangolo.com; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
