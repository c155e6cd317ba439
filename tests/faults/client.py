"""A client of the API that does not give up: it sends a POST again, with its key, until it is answered."""

from __future__ import annotations

import time
from typing import Any

import httpx

PATIENCE_SECONDS = 90.0
_PAUSE_SECONDS = 0.1
_PASSING = (429, 500, 502, 503, 504)


class PatientClient:
    """Not for threads. A 500 counts in `num_internal_errors`, and is tried again as the others are."""

    def __init__(self, url: str) -> None:
        self.num_retries = 0
        self.num_internal_errors = 0
        self._http = httpx.Client(base_url=url, timeout=15.0, verify=False)  # noqa: S501 - http

    def post(self, path: str, key: str, json: dict[str, Any] | None = None, **more: Any) -> httpx.Response:
        """The answer, whatever it is but one that asks to come again."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = self._try(path, key, json, more)
            if answer is not None and answer.status_code not in _PASSING:
                return answer
            if time.monotonic() > deadline:
                raise AssertionError(f"POST {path} was not answered: {answer and answer.text}")
            self.num_internal_errors += answer is not None and answer.status_code == 500
            self.num_retries += 1
            time.sleep(_PAUSE_SECONDS)

    def close(self) -> None:
        self._http.close()

    def _try(self, path: str, key: str, json: dict[str, Any] | None, more: dict[str, Any]) -> httpx.Response | None:
        try:
            return self._http.post(path, json=json, headers={"Idempotency-Key": key}, **more)
        except httpx.TransportError:
            return None
