"""`python -m docs.generate`: the whole site's sources in `build/docs`, from which the site is built there."""

from __future__ import annotations

import sys
from pathlib import Path

from docs.generate.pages import stage

if __name__ == "__main__":
    stage(Path(sys.argv[1] if len(sys.argv) > 1 else "build/docs"))
