"""`python -m api`: serves the HTTP API on the settings' host and port."""

from __future__ import annotations

import logging

import uvicorn

from api.main import create_app
from shared.settings import get_settings

_STOP_SECONDS = 5  # open event streams would keep the process alive for as long as their jobs run

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    settings = get_settings()
    uvicorn.run(create_app(settings), host=settings.host, port=settings.port, timeout_graceful_shutdown=_STOP_SECONDS)
