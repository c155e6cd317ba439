"""How much memory tensors take while something is computed: counted, byte by byte, not guessed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode


def peak_allocated(compute: Callable[[], object], held: Iterable[Tensor]) -> int:
    """The most bytes that tensors held at once during `compute()`, without `held`, which was there before.

    Sees what operations give, forward and backward; not what a single operation takes and gives back inside itself.
    """
    counting = _Counting(held)
    with counting:
        compute()
    return counting.peak


class _Counting(TorchDispatchMode):
    """Follows each storage from the first operation that gives it until it is freed."""

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = 0
        self._now = 0
        self._alive: dict[int, weakref.ref[Any]] = {}
        self._held = {tensor.untyped_storage()._cdata for tensor in held}

    def __torch_dispatch__(
        self, operation: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        result = operation(*args, **(kwargs or {}))
        for one in result if isinstance(result, tuple | list) else (result,):
            if isinstance(one, Tensor):
                self._see(one)
        return result

    def _see(self, tensor: Tensor) -> None:
        if tensor.layout != torch.strided:
            return
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._alive or key in self._held:
            return

        def forget(_: object) -> None:
            del self._alive[key]
            self._now -= size

        self._alive[key] = weakref.ref(storage, forget)
        self._now += size
        self.peak = max(self.peak, self._now)
