"""The child process that reads a hub model's pickled weights: limits itself, and writes the tensors as safetensors.

`python -m worker.base_models.unpickling STAGED CPU_SECONDS MEMORY_BYTES FILE_BYTES PICKLE…` exits with 0, or with
`DISK_FULL`. Anything else that it does means weights that are not plain tensors.
"""

from __future__ import annotations

import os
import sys
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from worker.base_models.conversion import DISK_FULL
from worker.sandbox import enter_sandbox


def main(staged: Path, cpu_seconds: int, memory_bytes: int, file_bytes: int, files: Sequence[Path]) -> int:
    enter_sandbox(cpu_seconds, memory_bytes, file_bytes)
    tensors = dict(_apart(pair for path in files for pair in _read(path)))
    try:
        save_file(tensors, staged, metadata={"format": "pt"})
        with staged.open("rb") as written:
            os.fsync(written.fileno())
    except (OSError, SafetensorError) as error:
        if "No space left" in str(error):
            return DISK_FULL
        raise
    return 0


def _read(path: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Mapped where the format allows it (since torch 1.6), so that memory holds no second copy."""
    content = torch.load(path, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(path))
    for name, tensor in content.items():
        if not isinstance(name, str) or type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            raise TypeError("weights are tensors by name, and nothing else")
        yield name, tensor.detach()


def _apart(named: Iterator[tuple[str, torch.Tensor]]) -> Iterator[tuple[str, torch.Tensor]]:
    """Safetensors know no tensors that share memory, as tied weights do: each gets a copy of its own."""
    seen: set[int] = set()
    for name, tensor in named:
        storage = tensor.untyped_storage()
        is_whole = storage.data_ptr() not in seen and storage.nbytes() == tensor.nbytes
        seen.add(storage.data_ptr())
        yield name, tensor.contiguous() if is_whole else tensor.clone(memory_format=torch.contiguous_format)


if __name__ == "__main__":
    cpu_seconds, memory_bytes, file_bytes = (int(limit) for limit in sys.argv[2:5])
    files = [Path(one) for one in sys.argv[5:]]
    sys.exit(main(Path(sys.argv[1]), cpu_seconds, memory_bytes, file_bytes, files))
