"""Which base models may be used, by name, and which of them lie on disk."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from shared.errors import ModelNotAllowed

DEMO_MODEL = "demo"


def check_allowed(name: str, allowed: Sequence[str]) -> str:
    """`name`, if one of the `allowed` names or patterns covers it; `ModelNotAllowed` otherwise.

    A local path is compared after `..` and links are resolved, so that it cannot leave an allowed folder.
    """
    wanted = os.path.realpath(name) if is_path(name) else name
    is_named_well = is_path(name) or (re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) and ".." not in name)
    if is_named_well and any(fnmatchcase(wanted, os.path.realpath(one) if is_path(one) else one) for one in allowed):
        return name
    raise ModelNotAllowed(
        f"The base model '{name[:200]}' is not in FINETUNED_ALLOWED_MODELS; add it there or choose one of "
        f"{', '.join(allowed)}.",
        param="model",
    )


def is_path(name: str) -> bool:
    """Whether a model is named by a local path and not by a hub name."""
    return name.startswith(("/", "./", "../", "~"))


def is_on_disk(name: str, cache_dir: Path | None) -> bool:
    """Whether `name` can be loaded without a network: a folder, the demo model, or in the hub's cache."""
    if name == DEMO_MODEL:
        return True
    if is_path(name):
        return _has_weights(Path(name).expanduser())
    snapshots = (cache_dir or default_cache_dir()) / f"models--{name.replace('/', '--')}" / "snapshots"
    return any(_has_weights(folder) for folder in snapshots.glob("*"))


def _has_weights(folder: Path) -> bool:
    """A configuration alone is what an interrupted download, or a training that only read it, leaves."""
    return (folder / "config.json").is_file() and any(
        any(folder.glob(pattern)) for pattern in ("*.safetensors", "pytorch_model*.bin")
    )


def default_cache_dir() -> Path:
    """Hugging Face's own cache folder, by its documented environment variables."""
    home = os.environ.get("HF_HOME", os.path.join(os.path.expanduser("~"), ".cache", "huggingface"))
    return Path(os.environ.get("HF_HUB_CACHE", os.path.join(home, "hub")))
