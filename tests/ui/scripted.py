"""An API that says what a test tells it: for pages whose endpoints answer from what workers do at length."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qs, urlsplit

from playwright.sync_api import Page, Route

Answer = Any | Callable[[dict[str, str]], Any]


def listing(rows: list[dict[str, Any]], key: str = "id", has_more: bool = False) -> dict[str, Any]:
    ends = (
        {"first_id": str(rows[0][key]), "last_id": str(rows[-1][key])} if rows else {"first_id": None, "last_id": None}
    )
    return {"object": "list", "data": rows, "has_more": has_more, **ends}


def answer(page: Page, path: str, found: Answer, status: int = 200) -> None:
    """What a GET of `path` gives: JSON, or what a function makes of the query."""

    def fulfil(route: Route) -> None:
        query = {name: values[0] for name, values in parse_qs(urlsplit(route.request.url).query).items()}
        body = found(query) if callable(found) else found
        route.fulfill(status=status, content_type="application/json", body=json.dumps(body))

    page.route(lambda url: urlsplit(url).path == path, fulfil)


def reached(page: Page, path: str) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    """What is sent to `path` from now on, and what the real API answers."""
    found: list[tuple[dict[str, Any], dict[str, Any]]] = []

    def forward(route: Route) -> None:
        response = route.fetch()
        found.append((json.loads(route.request.post_data or "{}"), response.json()))
        route.fulfill(response=response)

    page.route(lambda url: urlsplit(url).path == path, forward)
    return found
