"""Plots of the benchmarks' last results, as SVG."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
from matplotlib.figure import Figure

from bench.tables import RESULTS

_OURS, _OTHER = "#3949ab", "#9e9e9e"
_GIGABYTE = 1024**3
_INFERENCE = {
    "ours": "finetuned, 8 adapters",
    "ours-one": "finetuned, one adapter",
    "ours-base": "finetuned, base",
    "peft-sequential": "PEFT, one after the other",
    "peft-mixed": "PEFT, adapter_names",
    "generate": "transformers, generate, base",
    "continuous": "transformers, continuous batching, base",
}


def draw(folder: Path) -> None:
    """Writes every plot into `folder`."""
    with mpl.rc_context({"svg.hashsalt": "finetuned", "svg.fonttype": "none", "font.size": 9}):
        for name, figure in {"training": training(), "inference": inference(), "memory": memory()}.items():
            figure.savefig(folder / f"{name}.svg", metadata={"Date": None})


def training() -> Figure:
    """Useful tokens a second of each trainer."""
    found = _read("training")["median_tokens_per_second"]
    return _bars([(found, "useful tokens a second")])


def inference() -> Figure:
    """New tokens a second of each way to answer sixteen requests, for each model."""
    shapes = _read("inference")["shapes"]
    return _bars([(_speeds(shape["runs"]), f"{name}: new tokens a second") for name, shape in shapes.items()])


def memory() -> Figure:
    """Peak memory of the default configuration, and plain PEFT's."""
    found = {name: one["training_peak_bytes"] / _GIGABYTE for name, one in _read("memory")["footprints"].items()}
    return _bars([(found, "peak GB")])


def _speeds(runs: Mapping[str, Sequence[Mapping[str, float]]]) -> dict[str, float]:
    return {
        label: median(one["tokens_per_second"] for one in runs[name])
        for name, label in _INFERENCE.items()
        if name in runs
    }


def _bars(parts: Sequence[tuple[Mapping[str, float], str]]) -> Figure:
    most = max(len(values) for values, _ in parts)
    figure = Figure(figsize=(8, 0.5 + len(parts) * (0.5 + 0.28 * most)), layout="constrained")
    axes = figure.subplots(len(parts), 1, squeeze=False)[:, 0]
    for ax, (values, label) in zip(axes, parts, strict=True):
        names = list(values)[::-1]
        colors = [_OURS if name.startswith("finetuned") else _OTHER for name in names]
        bars = ax.barh(names, [values[name] for name in names], color=colors)
        ax.bar_label(bars, fmt=lambda value: f"{value:,.0f}" if value >= 20 else f"{value:.1f}", padding=3)
        ax.set_xlabel(label)
        ax.spines[["top", "right"]].set_visible(False)
        ax.margins(x=0.12)
    return figure


def _read(name: str) -> dict[str, Any]:
    return dict(json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8")))
