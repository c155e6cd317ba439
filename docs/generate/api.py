"""The reference of the HTTP API, a page a resource, from the OpenAPI document and the table of scopes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from api.access import SCOPES
from api.main import create_app
from docs.generate.markdown import code, table
from docs.generate.schemas import Schema, bounds, example, kind_of, request_example, resolved
from shared.settings import Settings

NAVIGATION = "          # and a page for each resource, from the code\n"
_JSON = "application/json"
_INTRODUCTION = """# The HTTP API

Two dialects over the same core: the service's own, and OpenAI's under `/v1`. A running service shows the same at
`/docs`, and the OpenAPI document at `/openapi.json`.

A *scope* is what an API key must have; while there is no key, the service answers its own machine alone. Lists are
paged: `limit` says how many, `after` is the last id of the page before. Errors are told in
[Error codes](../errors.md). A POST with an `Idempotency-Key`, where it takes one, may be sent again: it gets the first
answer.
"""


def pages() -> dict[str, str]:
    """The pages' texts by their paths."""
    document = create_app(Settings(_env_file=None)).openapi()
    resources = _by_resource(document)
    found = {
        f"reference/api/{_slug(tag)}.md": _page(tag, operations, document) for tag, operations in resources.items()
    }
    return {**found, "reference/api/index.md": _overview(resources)}


def navigation() -> str:
    """The resources' lines in the site's navigation, in place of `NAVIGATION`."""
    document = create_app(Settings(_env_file=None)).openapi()
    return "".join(f'          - "{_title(tag)}": reference/api/{_slug(tag)}.md\n' for tag in _by_resource(document))


def _by_resource(document: Schema) -> dict[str, list[tuple[str, str, Schema]]]:
    found: dict[str, list[tuple[str, str, Schema]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            found.setdefault(operation["tags"][0], []).append((method.upper(), path, operation))
    return found


def _overview(resources: dict[str, list[tuple[str, str, Schema]]]) -> str:
    parts = [_INTRODUCTION]
    for tag, operations in resources.items():
        rows = [
            (f"[`{method} {path}`]({_slug(tag)}.md#{_anchor(method, path)})", scope_of(method, path), _first(operation))
            for method, path, operation in operations
        ]
        parts += [f"## {_title(tag)}\n", table(("call", "scope", "what it does"), rows), ""]
    return "\n".join(parts)


def _page(tag: str, operations: list[tuple[str, str, Schema]], document: Schema) -> str:
    parts = [f"# {_title(tag)}\n"]
    for method, path, operation in operations:
        parts += [f"## `{method} {path}` {{ #{_anchor(method, path)} }}\n", str(operation.get("description", "")), ""]
        parts += [f"Scope: **{scope_of(method, path)}**\n", *_parameters(operation, document)]
        parts += [*_body(operation, document), *_answer(operation, document)]
    return "\n".join(parts)


def scope_of(method: str, path: str) -> str:
    """What a key must have; the document writes `{model}` for the table's `{model:path}`."""
    plain = {(verb, re.sub(r":\w+}", "}", route)): scope for (verb, route), scope in SCOPES.items()}
    return plain[method, path]


def _parameters(operation: Schema, document: Schema) -> Iterator[str]:
    rows = [
        (code(one["name"]), one["in"], *_row(one["schema"], document), one.get("description", ""))
        for one in operation.get("parameters", ())
    ]
    if rows:
        yield table(("parameter", "where", "type", "default", "bounds", ""), rows) + "\n"


def _row(schema: Schema, document: Schema) -> tuple[str, str, str]:
    return kind_of(schema, document), code(schema.get("default")), bounds(resolved(schema, document))


def _body(operation: Schema, document: Schema) -> Iterator[str]:
    for kind, content in operation.get("requestBody", {}).get("content", {}).items():
        schema = resolved(content["schema"], document)
        yield f"Body, `{kind}`:\n"
        yield from _fields(schema, document)
        if kind == _JSON and "properties" in schema:
            yield _json(request_example(schema, document))


def _fields(schema: Schema, document: Schema) -> Iterator[str]:
    required = schema.get("required", ())
    rows = [
        (code(name) + (" (required)" if name in required else ""), *_row(part, document), part.get("description", ""))
        for name, part in schema.get("properties", {}).items()
    ]
    if rows:
        yield table(("field", "type", "default", "bounds", ""), rows) + "\n"
    elif "anyOf" in schema or "oneOf" in schema:
        yield f"One of: {kind_of(schema, document)}.\n"


def _answer(operation: Schema, document: Schema) -> Iterator[str]:
    for status, response in operation["responses"].items():
        if not status.startswith("2"):
            continue
        schema = response.get("content", {}).get(_JSON, {}).get("schema")
        yield f"Answer {status}" + (":\n" if schema else f": {', '.join(response.get('content', {})) or 'empty'}.\n")
        if schema:
            yield from _fields(resolved(schema, document), document)
            yield _json(example(schema, document))


def _json(value: Any) -> str:
    return f"```json\n{json.dumps(value, indent=2, ensure_ascii=False)}\n```\n"


def _first(operation: Schema) -> str:
    return re.split(r"(?<=[.:;]) ", " ".join(str(operation.get("description", "")).split()))[0]


def _title(tag: str) -> str:
    return {"OpenAI": "OpenAI: models and answers", "files": "OpenAI: files", "uploads": "OpenAI: uploads"}.get(
        tag, (tag[:1].upper() + tag[1:]).replace("Openai", "OpenAI")
    )


def _slug(tag: str) -> str:
    return re.sub(r"[^a-z]+", "-", tag.lower())


def _anchor(method: str, path: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", f"{method}{path}".lower()).strip("-")
