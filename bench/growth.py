"""How the time of a step and the memory grow with the number of adapters and of sequences."""

from __future__ import annotations

import random
import sys
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from bench.adapters import RANK, save_adapters
from bench.children import GB, forget_peak, in_child, peak_resident_bytes, resident_bytes
from bench.engines import Request, answer_all, build_engine, step, submit
from bench.models import SHAPES, Setting, load_base, prepare_process, save_base
from bench.tables import publish

MB = 1024**2


@dataclass(frozen=True)
class Load:
    """What runs at once; the sequences take the adapters in turn."""

    num_adapters: int
    num_sequences: int
    num_steps: int
    num_prompt_tokens: int


@dataclass(frozen=True)
class Growth:
    """`step_seconds`: of one more token of every sequence. Memory: of the loaded model, what the adapters add once
    loaded, and what is added at most while all sequences run."""

    num_adapters: int
    num_sequences: int
    step_seconds: float
    base_bytes: int
    adapters_bytes: int
    running_bytes: int
    accelerator: str | None


def publish_growth(setting: Setting, chosen: Namespace) -> None:
    """Prints a row a number of adapters and sequences, and a plot of each."""
    with tempfile.TemporaryDirectory(prefix="bench-growth-") as folder:
        base = Path(folder) / "base"
        in_child(save_base, setting, base)
        adapters = in_child(_save, setting, base, max(chosen.growth_adapters))
        found = [
            in_child(measure_growth, setting, base, adapters[:count], _load(count, number, chosen))
            for count in chosen.growth_adapters
            for number in chosen.growth_sequences
        ]
    header = ["adapters", "sequences", "ms a step", "tokens/s", "adapters, MB", "running, MB", "in all, GB"]
    publish(
        "-".join(["inference-growth", setting.shape, *([] if setting.device == "cpu" else [setting.device])]),
        f"Growth with adapters and sequences ({setting.shape}, {setting.dtype}, {setting.device})",
        header,
        [_row(one) for one in found],
        {"setting": asdict(setting), "options": vars(chosen), "growth": [asdict(one) for one in found]},
        notes=[
            f"Our engine in a process of its own for each row, {chosen.threads} threads, adapters of rank {RANK} on "
            f"all linear layers of the blocks, all loaded; the sequences, {chosen.prompt_tokens} tokens of prompt "
            "each, take them in turn, so a row has as many adapters at work as the smaller of its two numbers.",
            f"A step: one more token of every sequence, mean of {chosen.growth_steps}. Memory: "
            + ("that torch took of the device." if setting.device == "cuda" else "resident, of the whole process."),
            "The plots are Mermaid's, which GitHub and GitLab draw; no plotting library is among the dependencies.",
        ],
        appendix=[
            *_plot("Milliseconds a step, by adapters", "sequences", chosen.growth_sequences, _lines(found, chosen)),
        ],
        accelerator=found[0].accelerator,
        is_kept=not chosen.quick,
    )


def measure_growth(setting: Setting, base: Path, adapters: Sequence[Path], load: Load) -> Growth:
    """One row. Each adapter answers a token first, so that all are loaded, and the memory is then what they take."""
    prepare_process(setting)
    most = max(load.num_sequences, 1)
    engine = build_engine(load_base(setting, base).eval(), max_batch_size=most, max_loaded_adapters=len(adapters))
    source = random.Random(0)
    prompt = _prompt(source, setting, load)
    answer_all(engine, [Request(prompt, 2)])
    base_bytes = _bytes_now(setting)
    for folder in adapters:
        answer_all(engine, [Request(prompt[:1], 1, folder)])
    with_adapters = _bytes_now(setting)
    forget_peak()
    requests = [
        Request(_prompt(source, setting, load), 2 * load.num_steps + 2, adapters[index % len(adapters)])
        for index in range(load.num_sequences)
    ]
    seconds = _step_seconds(engine, requests, load.num_steps)
    return Growth(
        num_adapters=len(adapters),
        num_sequences=load.num_sequences,
        step_seconds=seconds,
        base_bytes=base_bytes,
        adapters_bytes=max(with_adapters - base_bytes, 0),
        running_bytes=max(_peak_bytes(setting) - with_adapters, 0),
        accelerator=torch.cuda.get_device_name() if setting.device == "cuda" else None,
    )


def _step_seconds(engine: object, requests: Sequence[Request], num_steps: int) -> float:
    """Whatever the engine does in one of its steps: the time in which all sequences grow by `num_steps` tokens
    together, from where each has two, over `num_steps`."""
    answers = submit(engine, requests)  # type: ignore[arg-type]
    while min(len(answer.tokens) for answer in answers) < 2:
        step(engine)  # type: ignore[arg-type]
    begun, num_before = time.perf_counter(), sum(len(answer.tokens) for answer in answers)
    wanted = num_before + num_steps * len(answers)
    while sum(len(answer.tokens) for answer in answers) < wanted:
        step(engine)  # type: ignore[arg-type]
    seconds = time.perf_counter() - begun
    return seconds * len(answers) / (sum(len(answer.tokens) for answer in answers) - num_before)


def _load(num_adapters: int, num_sequences: int, chosen: Namespace) -> Load:
    print(f"growth: {num_adapters} adapters, {num_sequences} sequences", file=sys.stderr, flush=True)
    return Load(num_adapters, num_sequences, chosen.growth_steps, chosen.prompt_tokens)


def _prompt(source: random.Random, setting: Setting, load: Load) -> list[int]:
    return [source.randrange(2, SHAPES[setting.shape].vocab_size) for _ in range(load.num_prompt_tokens)]


def _save(setting: Setting, base: Path, count: int) -> list[Path]:
    prepare_process(setting)
    return save_adapters(load_base(setting, base), base.parent / "adapters", count)


def _bytes_now(setting: Setting) -> int:
    return torch.cuda.memory_allocated() if setting.device == "cuda" else resident_bytes()


def _peak_bytes(setting: Setting) -> int:
    return torch.cuda.max_memory_allocated() if setting.device == "cuda" else peak_resident_bytes()


def _row(one: Growth) -> list[str]:
    total = one.base_bytes + one.adapters_bytes + one.running_bytes
    return [
        str(one.num_adapters),
        str(one.num_sequences),
        f"{1000 * one.step_seconds:,.1f}",
        f"{one.num_sequences / one.step_seconds:,.1f}",
        f"{one.adapters_bytes / MB:,.0f}",
        f"{one.running_bytes / MB:,.0f}",
        f"{total / GB:.2f}",
    ]


def _lines(found: Sequence[Growth], chosen: Namespace) -> dict[str, list[float]]:
    """Milliseconds a step by number of sequences, a line a number of adapters."""
    return {
        f"{count} adapters": [1000 * one.step_seconds for one in found if one.num_adapters == count]
        for count in chosen.growth_adapters
    }


def _plot(title: str, axis: str, marks: Sequence[int], lines: dict[str, list[float]]) -> list[str]:
    """A Mermaid chart in Markdown, its lines in the order of the title's names."""
    names = ", ".join(lines)
    drawn = [f"    line [{', '.join(f'{value:.2f}' for value in values)}]" for values in lines.values()]
    return [
        "",
        "```mermaid",
        "xychart-beta",
        f'    title "{title} (bottom to top: {names})"',
        f'    x-axis "{axis}" [{", ".join(map(str, marks))}]',
        '    y-axis "ms"',
        *drawn,
        "```",
    ]
