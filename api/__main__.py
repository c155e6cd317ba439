"""`python -m api`: serves the HTTP API on the settings' host and port."""

from __future__ import annotations

import gc
import sys

from shared.logs import set_up_logging
from shared.quick_imports import quick_imports
from shared.settings import get_settings

with quick_imports():
    from api.access_log import keep_queries_out
    from api.address import address_to_bind
    from api.draining import serve
    from api.main import create_app

# The event loop gets the interpreter's lock back so soon from threads that compute; Python's own 5 ms, times the
# threads, keep all requests waiting while some of them look into the database.
SWITCH_SECONDS = 0.0005

if __name__ == "__main__":
    gc.freeze()  # what was imported stays: no collection need look at it while requests wait
    sys.setswitchinterval(SWITCH_SECONDS)
    settings = get_settings()
    set_up_logging(settings.log_format, "api")
    keep_queries_out()
    serve(create_app(settings), address_to_bind(settings), settings.port)
