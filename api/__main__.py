"""`python -m api`: serves the HTTP API on the settings' host and port."""

from __future__ import annotations

import gc
import logging

from shared.quick_imports import quick_imports
from shared.settings import get_settings

with quick_imports():
    from api.access_log import keep_queries_out
    from api.address import address_to_bind
    from api.draining import serve
    from api.main import create_app

if __name__ == "__main__":
    gc.freeze()  # what was imported stays: no collection need look at it while requests wait
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    keep_queries_out()
    settings = get_settings()
    serve(create_app(settings), address_to_bind(settings), settings.port)
