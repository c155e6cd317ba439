"""Which layers of a model LoRA adapts: found by their type, or checked when they are named."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from shared.errors import TargetModulesNotFound

# bitsandbytes' 8-bit and 4-bit layers are nn.Linear by inheritance; GPT-2's layers are transformers' Conv1D.
LINEAR_TYPES = (nn.Linear, Conv1D)
MATCH_SECONDS = 1  # of processor time for all of a model's layers; a harmless pattern takes milliseconds

_MATCH = f"""
import json, re, resource, sys
resource.setrlimit(resource.RLIMIT_CPU, ({MATCH_SECONDS}, {MATCH_SECONDS}))
pattern, paths = json.load(sys.stdin)
json.dump([path for path in paths if re.fullmatch(pattern, path)], sys.stdout)
"""


def find_target_modules(model: PreTrainedModel, requested: Sequence[str] | str | None) -> list[str]:
    """Sorted names or whole paths of the layers to adapt, as PEFT's `target_modules` takes them.

    `requested` None or `auto`: every linear layer of the numbered blocks; `all-linear`: every linear layer but the
    output head; a list: the ends of paths, such as `q_proj` or `attn.c_proj`; another string: a regular expression that
    must match a whole path. Raises `TargetModulesNotFound`, with the possible names, if the expression or one of the
    names fits no linear layer.
    """
    paths = list(_linear_paths(model))
    automatic = sorted({_leaf(path) for path in paths if _is_in_block(path)})
    if not automatic:
        raise TargetModulesNotFound("This model has no linear layers that LoRA could adapt; choose another base model.")
    if requested is None or requested == "auto":
        return automatic
    if requested == "all-linear":
        return sorted(paths)
    if isinstance(requested, str):
        return _matching(requested, paths)
    missing = [name for name in requested if not any(_ends_with(path, name) for path in paths)]
    if missing:
        named = ", ".join(repr(name[:100]) for name in missing[:10])
        raise _not_found(f"The model has no target module {named}", paths)
    return sorted(set(requested))


def has_conv1d(model: PreTrainedModel) -> bool:
    """Whether the model's own weights are stored transposed, as in GPT-2 (PEFT wants to be told).

    Quantized layers are not; they remember what they were made of, and the adapter is served on that.
    """
    return any(
        isinstance(module, Conv1D) or getattr(module, "source_cls", None) is Conv1D for module in model.modules()
    )


def _matching(pattern: str, paths: Sequence[str]) -> list[str]:
    """The paths that `pattern` matches from end to end.

    In a child that the kernel ends: `(.*)*x` may take years, and nothing stops Python's `re` once it runs. PEFT gets
    the paths, so that no such pattern reaches those who load the adapter.
    """
    child = subprocess.run(
        [sys.executable, "-I", "-S", "-c", _MATCH],
        input=json.dumps([pattern, list(paths)]),
        capture_output=True,
        text=True,
    )
    if child.returncode != 0:
        raise _not_found("The regular expression in target_modules takes too long to match", paths)
    found: list[str] = json.loads(child.stdout)
    if not found:
        raise _not_found(
            "The regular expression in target_modules matches the whole path of no linear layer; a path looks like "
            f"'{min(paths)}', the output head is never adapted, and a list names layers by their ends",
            paths,
        )
    return sorted(found)


def _not_found(problem: str, paths: Sequence[str]) -> TargetModulesNotFound:
    return TargetModulesNotFound(
        f"{problem}; possible are {', '.join(sorted(set(map(_leaf, paths))))}. Leave target_modules out to adapt them "
        "all.",
        param="target_modules",
    )


def _linear_paths(model: PreTrainedModel) -> Iterator[str]:
    """Paths of the linear layers, the output head left out."""
    head = model.get_output_embeddings()
    for path, module in model.named_modules():
        if isinstance(module, LINEAR_TYPES) and module is not head:
            yield path


def _is_in_block(path: str) -> bool:
    return any(part.isdigit() for part in path.split("."))


def _leaf(path: str) -> str:
    """The last part of a path, with the part before it where the last is a mere number."""
    parts = path.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]


def _ends_with(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")
