"""`python -m tests.bench.bare_machine FOLDER`: ours in the benchmark, where what else is installed is not found."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

NOT_THERE = {"pydantic", "pydantic_settings", "sqlalchemy", "celery", "redis", "trl", "datasets", "bitsandbytes"}


class Absence:
    """Finds nothing: an import of these names fails as if they were not installed."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name.partition(".")[0] in NOT_THERE:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def main(base: Path) -> None:
    found = importlib.util.find_spec
    importlib.util.find_spec = lambda name, package=None: None if name in NOT_THERE else found(name, package)
    sys.meta_path.insert(0, Absence())
    import bench.memory
    import bench.training  # noqa: F401 - imports everything that a run needs
    from bench.models import Setting
    from bench.paragraphs import paragraphs
    from bench.trainers import CONTENDERS, OURS, measure_speed

    measured = measure_speed(OURS, Setting(shape="tiny", num_threads=1), base, paragraphs(16, 512, 0), 16, 0.0)
    assert measured.num_epochs == 1
    _check_inference(base)
    assert CONTENDERS["trl-dynamic"].missing == ["trl", "datasets"]


def _check_inference(base: Path) -> None:
    from bench.adapters import save_adapters
    from bench.generators import OURS
    from bench.inference import _parsed, measure
    from bench.models import Setting, load_base

    setting = Setting(shape="tiny", num_threads=1)
    adapters = save_adapters(load_base(setting, base), base.parent / "adapters", 2)
    few = ["--streams", "2", "--new-tokens", "2", "--bandwidth-seconds", "0", "--contenders", OURS]
    found = measure(setting, _parsed(["--quick", *few]), base, adapters)
    assert found.failed == {}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
