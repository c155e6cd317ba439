"""What NVIDIA's driver says of the machine's GPUs, for Prometheus: how busy they are, and their memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from shared.metric_families import gauge

log = logging.getLogger(__name__)

_LABELS = ("gpu", "name")


class Gpus(Collector):
    """All GPUs that the process may see, asked at each scrape. `nvml` is the driver's library, as `pynvml` binds it."""

    def __init__(self, nvml: Any) -> None:
        self._nvml = nvml

    def collect(self) -> Iterator[Metric]:
        seen = [reading for index in range(self._nvml.nvmlDeviceGetCount()) if (reading := self._read(index))]
        utilizations, used, total = ([(labels, values[place]) for labels, values in seen] for place in range(3))
        yield gauge("gpu_utilization_ratio", "Share of the last moment in which it computed.", _LABELS, utilizations)
        yield gauge("gpu_memory_used_bytes", "Memory in use, by whomever.", _LABELS, used)
        yield gauge("gpu_memory_bytes", "Memory in all.", _LABELS, total)

    def _read(self, index: int) -> tuple[tuple[str, str], tuple[float, float, float]] | None:
        """None for a GPU that does not tell: one that fell off the bus, or a slice of one."""
        try:
            device = self._nvml.nvmlDeviceGetHandleByIndex(index)
            name, memory = self._nvml.nvmlDeviceGetName(device), self._nvml.nvmlDeviceGetMemoryInfo(device)
            busy = self._nvml.nvmlDeviceGetUtilizationRates(device).gpu / 100
        except self._nvml.NVMLError as error:
            log.debug("GPU %d does not tell: %s", index, error)
            return None
        return (str(index), str(name)), (busy, memory.used, memory.total)


def find_gpus() -> Gpus | None:
    """None where there is no driver."""
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None
    return Gpus(pynvml)
