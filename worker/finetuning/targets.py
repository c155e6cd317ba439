"""Which layers of a model LoRA adapts: found by their type, or checked when they are named."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from shared.errors import TargetModulesNotFound

# bitsandbytes' 8-bit and 4-bit layers are nn.Linear by inheritance; GPT-2's layers are transformers' Conv1D.
LINEAR_TYPES = (nn.Linear, Conv1D)


def find_target_modules(model: PreTrainedModel, requested: Sequence[str] | None) -> list[str]:
    """Sorted names of the layers to adapt: the `requested` ones, else every linear layer of the blocks.

    A name is the end of a layer's path, such as `q_proj` or `attn.c_proj`. Raises `TargetModulesNotFound`, with the
    possible names, if one of the requested names fits no linear layer of the blocks.
    """
    paths = list(_linear_paths(model))
    possible = sorted({_leaf(path) for path in paths})
    if not possible:
        raise TargetModulesNotFound("This model has no linear layers that LoRA could adapt; choose another base model.")
    if requested is None:
        return possible
    missing = [name for name in requested if not any(_ends_with(path, name) for path in paths)]
    if missing:
        raise TargetModulesNotFound(
            f"The model has no target module {', '.join(repr(name[:100]) for name in missing)}; possible are "
            f"{', '.join(possible)}. Leave target_modules out to adapt them all.",
            param="target_modules",
        )
    return sorted(set(requested))


def has_conv1d(model: PreTrainedModel) -> bool:
    """Whether weights are stored transposed, as in GPT-2 (PEFT wants to be told)."""
    return any(isinstance(module, Conv1D) for module in model.modules())


def _linear_paths(model: PreTrainedModel) -> Iterator[str]:
    """Paths of the linear layers inside the numbered blocks, the output head left out."""
    head = model.get_output_embeddings()
    for path, module in model.named_modules():
        is_in_block = any(part.isdigit() for part in path.split("."))
        if is_in_block and isinstance(module, LINEAR_TYPES) and module is not head:
            yield path


def _leaf(path: str) -> str:
    """The last part of a path, with the part before it where the last is a mere number."""
    parts = path.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]


def _ends_with(path: str, name: str) -> bool:
    return path == name or path.endswith(f".{name}")
