"""What Linux's out-of-memory killer does: how often it has struck, and whom it should take first."""

from __future__ import annotations

import logging
from pathlib import Path

VMSTAT = Path("/proc/vmstat")
_OWN_SCORE = Path("/proc/self/oom_score_adj")
_BEFORE_OTHERS = 500  # of 1,000; any process may raise its own

log = logging.getLogger(__name__)


def oom_kills(vmstat: Path = VMSTAT) -> int | None:
    """How many processes the kernel has killed for lack of memory, in whichever container, since the machine started;
    None where it does not tell (before Linux 4.13, or in a sandbox)."""
    try:
        counts = dict(line.split() for line in vmstat.read_text().splitlines())
        return int(counts["oom_kill"])
    except (OSError, ValueError, KeyError):
        return None


def go_first() -> None:
    """Asks the kernel to kill this process rather than its supervisor, the database or the API."""
    try:
        _OWN_SCORE.write_text(str(_BEFORE_OTHERS))
    except OSError as error:
        log.info("this process is as likely to be killed for memory as any other: %s", error)
