"""`python -m bench [NAME …] [OPTIONS]`: runs the named benchmarks, or all; options go to each of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from itertools import takewhile

BENCHMARKS = (
    "service",
    "training",
    "memory",
    "inference",
    "serving",
    "retrieval",
    "pages",
    "overhead",
    "coverage",
    "drift",
    "answers",
)


def main(arguments: Sequence[str]) -> None:
    names = list(takewhile(lambda argument: not argument.startswith("-"), arguments))
    for name in names or BENCHMARKS:
        if name not in BENCHMARKS:
            raise SystemExit(f"There is no benchmark '{name}'; choose from {', '.join(BENCHMARKS)}.")
        import_module(f"bench.{name}").main(arguments[len(names) :])


if __name__ == "__main__":
    main(sys.argv[1:])
