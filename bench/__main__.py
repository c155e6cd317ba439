"""`python -m bench [NAME …]`: runs the named benchmarks, or all."""

from __future__ import annotations

import sys
from importlib import import_module

BENCHMARKS = ("service",)


def main(names: list[str]) -> None:
    for name in names or BENCHMARKS:
        if name not in BENCHMARKS:
            raise SystemExit(f"There is no benchmark '{name}'; choose from {', '.join(BENCHMARKS)}.")
        import_module(f"bench.{name}").main()


if __name__ == "__main__":
    main(sys.argv[1:])
