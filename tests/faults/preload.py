"""What the trials import, imported once: each is forked from a process that has done so.

Nothing is compiled, and torch's compiler takes seconds to import. What stays is no business of the collector, whose
looks at it would be measured as the service's.
"""

from __future__ import annotations

import gc
import os

os.environ["TORCHDYNAMO_DISABLE"] = "1"
gc.disable()

import peft  # noqa: E402
import transformers  # noqa: E402

from tests.faults import registry  # noqa: E402

__all__ = ["peft", "registry", "transformers"]
gc.freeze()
gc.enable()
