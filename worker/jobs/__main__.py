"""`python -m worker.jobs setup|training|batch|sweep`: one worker; `setup` does imports and exports too."""

from __future__ import annotations

import argparse

from shared.quick_imports import quick_imports

with quick_imports():
    from worker.jobs import tasks
    from worker.jobs.child import KINDS, RUNNERS


def main() -> None:
    """Serves until SIGTERM: then the running job writes a checkpoint and is handed back."""
    parser = argparse.ArgumentParser(prog="python -m worker.jobs", description=main.__doc__)
    parser.add_argument("kind", choices=sorted(KINDS))
    parser.add_argument("--runner", help="module:function that does the work (default: by kind)")
    arguments = parser.parse_args()
    tasks.serve(arguments.kind, {kind: arguments.runner or RUNNERS[kind] for kind in KINDS[arguments.kind]})


if __name__ == "__main__":
    main()
