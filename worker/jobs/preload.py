"""Imported by the fork server before the runner's module, so that this import is cheap; its children inherit it.

Nothing collects garbage until a child does (`child.run_claimed`): it would look through all that is being imported
again and again, and write to pages that the children share. And nothing of ours is compiled, so bitsandbytes, which
PEFT imports, need not load torch's compiler: half a second, and 50 MB. What the imports say goes the way of all logs.
The tables' classes are bound here once, and not by each child at its first query (20 ms).
"""

from __future__ import annotations

import gc
import os

from sqlalchemy.orm import configure_mappers

from shared import models  # noqa: F401 - what is to be bound
from shared.logs import set_up_logging
from shared.settings import get_settings

gc.disable()
os.environ.setdefault("TORCHDYNAMO_DISABLE", "1")
set_up_logging(get_settings().log_format, "fork-server")
configure_mappers()
