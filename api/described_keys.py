"""What the OpenAPI document says of API keys: which operations take one, and of which scope."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from api.access import SCOPES

_SCHEME = {
    "type": "http",
    "scheme": "bearer",
    "description": "An API key. A service that has none yet, and listens to its own machine alone, asks for none.",
}
_NEEDED = {(method, path.replace(":path}", "}")): scope for (method, path), scope in SCOPES.items()}


def describe_keys(app: FastAPI) -> None:
    """Adds it to what FastAPI writes, so that `/docs` asks for a key and generated clients send one."""
    written = app.openapi

    def openapi() -> dict[str, Any]:
        document = written()  # made once
        document["components"]["securitySchemes"] = {"ApiKey": _SCHEME}
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                scope = _NEEDED[method.upper(), path]
                if scope != "public":
                    operation["security"] = [{"ApiKey": [scope]}, {}]
        return document

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's documentation has it
