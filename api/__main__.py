"""`python -m api`: serves the HTTP API on the settings' host and port."""

from __future__ import annotations

import gc

from shared.logs import set_up_logging
from shared.quick_imports import quick_imports
from shared.settings import get_settings

with quick_imports():
    from api.access_log import keep_queries_out
    from api.address import address_to_bind
    from api.draining import serve
    from api.main import create_app

if __name__ == "__main__":
    gc.freeze()  # what was imported stays: no collection need look at it while requests wait
    settings = get_settings()
    set_up_logging(settings.log_format, "api")
    keep_queries_out()
    serve(create_app(settings), address_to_bind(settings), settings.port)
