"""What the GPUs' driver says is shown; a GPU that does not tell is left out."""

from __future__ import annotations

from types import SimpleNamespace

from prometheus_client import CollectorRegistry

from worker.gpus import Gpus


class DriverError(Exception):
    pass


class Nvml:
    """A driver with two GPUs, of which the second has fallen off the bus."""

    NVMLError = DriverError

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802 - the driver's names
        return 2

    def nvmlDeviceGetHandleByIndex(self, index: int) -> int:  # noqa: N802
        if index == 1:
            raise DriverError("GPU is lost")
        return index

    def nvmlDeviceGetName(self, device: int) -> str:  # noqa: N802
        return "Tiny GPU"

    def nvmlDeviceGetMemoryInfo(self, device: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(used=3, total=4)

    def nvmlDeviceGetUtilizationRates(self, device: int) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(gpu=50)


def test_each_gpu_that_tells_is_shown() -> None:
    registry = CollectorRegistry()
    registry.register(Gpus(Nvml()))
    samples = {one.name: (one.labels, one.value) for family in registry.collect() for one in family.samples}
    labels = {"gpu": "0", "name": "Tiny GPU"}
    assert samples == {
        "finetuned_gpu_utilization_ratio": (labels, 0.5),
        "finetuned_gpu_memory_used_bytes": (labels, 3),
        "finetuned_gpu_memory_bytes": (labels, 4),
    }
