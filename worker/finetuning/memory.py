"""How much memory a device has in use, and how much is left for us."""

from __future__ import annotations

import ctypes
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import torch

# Where Linux's two versions of control groups say how much a group may use, uses, and could give back at once.
_CGROUP_V1 = ("sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_M_MMAP_THRESHOLD, _LARGE_BYTES = -3, 128 * 1024
_CGROUP_V2 = ("sys/fs/cgroup", "memory.max", "memory.current", "inactive_file")


def used_bytes(device: torch.device) -> int:
    """What this process holds at the moment: resident memory on a CPU, allocated by torch on a GPU."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    return int(psutil.Process().memory_info().rss)


def peak_bytes(device: torch.device) -> int:
    """The most that this process has held so far, counted as `used_bytes` counts."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024  # Linux counts in KiB


def return_freed_memory() -> None:
    """From now on, what tensors on the CPU free goes back to the system at once, where the C library is glibc.

    Its heap otherwise keeps gaps that new tensors do not fit into: with checkpointing, resident memory was up to 2.8
    times of what tensors held. Every larger tensor then costs page faults (up to a third of the speed), so this is
    for when memory is short. It holds for the whole process and cannot be taken back.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _LARGE_BYTES)


def available_bytes(device: torch.device) -> int:
    """What this process may still take: on a CPU what the machine has left, its container, or its own limits
    (`ulimit`), whichever is least."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min([int(psutil.virtual_memory().available), *container_rooms(), *_rooms_below_limits()])


def container_rooms(root: Path = Path("/")) -> list[int]:
    """Bytes left below each memory limit of this process's control group and of those around it; empty without one.

    What the group holds of files is counted as left, as far as it has not been used of late: the kernel drops it first.
    """
    rooms = []
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers in ("", "memory"):
            mount, *names = _CGROUP_V1 if controllers else _CGROUP_V2
            rooms += [room for folder in _upwards(root / mount, path) if (room := _room(folder, *names)) is not None]
    return rooms


def _rooms_below_limits() -> list[int]:
    used = psutil.Process().memory_info()
    limits = [(resource.RLIMIT_AS, used.vms), (resource.RLIMIT_DATA, used.data)]
    rooms = [(resource.getrlimit(limit)[0], taken) for limit, taken in limits]
    return [max(0, limit - taken) for limit, taken in rooms if limit != resource.RLIM_INFINITY]


def _upwards(mount: Path, path: str) -> Iterator[Path]:
    """The group's folder and those above it. Seen from inside a container, the container's own is the mount itself."""
    folder = mount / path.lstrip("/")
    while folder != mount:
        yield folder
        folder = folder.parent
    yield mount


def _room(folder: Path, limit_name: str, usage_name: str, reclaimable_name: str) -> int | None:
    limit, usage = _read(folder / limit_name).strip(), _read(folder / usage_name).strip()
    if not (limit.isdigit() and usage.isdigit()):  # no such file, or "max"
        return None
    counts = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
    return max(0, int(limit) - int(usage) + int(counts.get(reclaimable_name, 0)))


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
