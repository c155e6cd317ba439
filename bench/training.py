"""Ours against `transformers` Trainer and TRL's SFTTrainer in each mode: tokens per second, memory, held-out loss."""

from __future__ import annotations

import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from statistics import median

from bench.ceiling import Ceiling, measure_ceiling
from bench.children import GB, ChildFailed, in_child
from bench.models import SHAPES, Setting, save_base
from bench.paragraphs import Paragraph, describe_lengths, num_tokens, paragraphs
from bench.scoring import score_adapters
from bench.tables import publish, spread
from bench.trainers import CONTENDERS, OURS, Measured, measure_learning, measure_speed

NUM_PARAGRAPHS, NUM_HELD_OUT = 3000, 100
CEILING, BASE = "ceiling", "base"
LEARNERS = (OURS, "transformers-dynamic", "trl-packing-1x4")
QUICK = {
    "shape": "tiny",
    "rounds": 1,
    "examples": 16,
    "seconds": 0.0,
    "ceiling_seconds": 0.1,
    "learning_steps": 2,
    "contenders": [OURS, "transformers-dynamic", "trl-packing-1x4"],
    "learners": [OURS],
}


@dataclass
class Results:
    """Everything that was measured, by contender; `failed` says why one has no figures."""

    speeds: dict[str, list[Measured]] = field(default_factory=dict)
    ceilings: list[Ceiling] = field(default_factory=list)
    learnings: dict[str, Measured] = field(default_factory=dict)
    losses: dict[str, float] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)

    def speed(self, name: str) -> float:
        return median(one.tokens_per_second for one in self.speeds[name])

    @property
    def ceiling(self) -> float:
        return median(one.tokens_per_second for one in self.ceilings)


def main(options: Sequence[str] = ()) -> None:
    """Prints a row a contender."""
    chosen = _parsed(options)
    setting = Setting(
        chosen.shape, chosen.device, chosen.dtype, chosen.quantization, chosen.attention, chosen.threads or None
    )
    rows = paragraphs(NUM_PARAGRAPHS + NUM_HELD_OUT, SHAPES[setting.shape].vocab_size, setting.seed)
    with tempfile.TemporaryDirectory(prefix="bench-training-") as folder:
        base = Path(folder) / "base"
        in_child(save_base, setting, base)
        results = measure(setting, chosen, base, rows[:NUM_PARAGRAPHS], rows[NUM_PARAGRAPHS:])
    _publish(setting, chosen, rows[:NUM_PARAGRAPHS], results)


def measure(
    setting: Setting, chosen: Namespace, base: Path, rows: Sequence[Paragraph], held_out: Sequence[Paragraph]
) -> Results:
    """Every contender, and the ceiling among them, once a round, in an order that the rounds rotate; then the
    learners, each once through the same paragraphs."""
    results = Results()
    for name in sorted({*chosen.contenders, *chosen.learners}):
        if CONTENDERS[name].missing:
            results.failed[name] = f"skipped: {' and '.join(CONTENDERS[name].missing)} not installed"
    for number in range(chosen.rounds):
        entries = [*(name for name in chosen.contenders if name not in results.failed), CEILING]
        start = number * len(entries) // chosen.rounds
        for name in [*entries[start:], *entries[:start]]:
            _say(f"round {number + 1}/{chosen.rounds}: {name}")
            if name == CEILING:
                results.ceilings.append(in_child(measure_ceiling, setting, chosen.ceiling_seconds))
                continue
            try:
                measured = in_child(measure_speed, name, setting, base, rows, chosen.examples, chosen.seconds)
            except ChildFailed as error:
                results.failed[name] = str(error)
            else:
                results.speeds.setdefault(name, []).append(measured)
    lesson = rows[: chosen.learning_steps * setting.step_size]
    adapters: dict[str, Path | None] = {BASE: None}
    for name in [one for one in chosen.learners if one not in results.failed and lesson]:
        _say(f"learning: {name}")
        folder = base.with_name(name)
        try:
            results.learnings[name] = in_child(measure_learning, name, setting, base, lesson, folder)
        except ChildFailed as error:
            results.failed[name] = str(error)
        else:
            adapters[name] = folder
    results.losses = in_child(score_adapters, adapters, setting, base, held_out)
    return results


def _publish(setting: Setting, chosen: Namespace, rows: Sequence[Paragraph], results: Results) -> None:
    order = sorted(results.speeds, key=lambda name: (name != OURS, -results.speed(name)))
    header = ["trainer", "tokens/s, median", "min–max", "share of ceiling", "ours ÷ it", "peak GB", "held-out loss"]
    raw = {
        "setting": asdict(setting),
        "options": vars(chosen),
        "versions": _versions(),
        "median_tokens_per_second": {name: results.speed(name) for name in order},
        "ceiling_tokens_per_second": results.ceiling,
        **asdict(results),
    }
    first = next((runs[0] for runs in results.speeds.values()), None)
    publish(
        _name(setting),
        f"Training one LoRA adapter ({_describe(setting)})",
        header,
        [_row(name, results) for name in order],
        raw,
        notes=[*_notes(setting, chosen, rows, results, first), *_modes(order), *_failures(results)],
        accelerator=first.accelerator if first else None,
        is_kept=not chosen.quick,
    )


def _row(name: str, results: Results) -> list[str]:
    found = spread([one.tokens_per_second for one in results.speeds[name]])
    learned = [results.learnings[name]] if name in results.learnings else []
    peaks = [one.peak_bytes for one in [*results.speeds[name], *learned]]
    is_comparable = OURS in results.speeds
    return [
        CONTENDERS[name].label,
        f"{found['median']:,.0f}",
        f"{found['min']:,.0f}–{found['max']:,.0f}",
        f"{found['median'] / results.ceiling:.0%}",
        f"{results.speed(OURS) / found['median']:.2f}" if is_comparable else "–",
        f"{max(peaks) / GB:.2f}",
        f"{results.losses[name]:.4f}" if name in results.losses else "–",
    ]


def _notes(
    setting: Setting, chosen: Namespace, rows: Sequence[Paragraph], results: Results, first: Measured | None
) -> list[str]:
    best = max(results.ceilings, key=lambda one: one.tokens_per_second)
    lesson = rows[: chosen.learning_steps * setting.step_size]
    found = spread([one.tokens_per_second for one in results.ceilings])
    threads = "" if first is None else f", {first.num_threads} threads"
    return [
        f"{len(rows):,} paragraphs: {describe_lengths(rows)}; every token is learned. Tokens are counted without "
        f"padding. LoRA rank {setting.lora_rank}, alpha {setting.lora_alpha}, dropout {setting.lora_dropout} on all "
        f"linear layers, the model's own dropouts on, batch {setting.batch_size} × accumulation "
        f"{setting.gradient_accumulation_steps}, max_length {setting.max_length}{threads}.",
        f"Speed: {chosen.rounds} rounds, every contender once a round in a process of its own, whole epochs over "
        f"{chosen.examples} examples whose lengths are spread as all are, for at least {chosen.seconds:g} s after "
        "an untimed step that holds the longest of all.",
        f"Ceiling: {results.ceiling:,.0f} tokens/s ({found['min']:,.0f}–{found['max']:,.0f}), were a step its products "
        f"with weights alone ({best.flops_per_token / 1e6:.1f} MFLOP a token; {best.gigaflops:,.0f} GFLOP/s at best, "
        f"{best.tokens_per_pass} tokens a product), attention and elementwise work left out.",
        "Peak: of the device's memory that torch took."
        if first and first.accelerator
        else "Peak: resident memory of the whole process from the loaded model on.",
        f"Held-out loss: after one pass over the same {len(lesson)} paragraphs ({num_tokens(lesson):,} tokens); "
        f"{NUM_HELD_OUT} others scored by transformers and PEFT alone. The untrained model: "
        f"{results.losses[BASE]:.4f}. Order and number of steps are each trainer's own.",
    ]


def _modes(names: Sequence[str]) -> list[str]:
    return [f"{CONTENDERS[name].label}: {CONTENDERS[name].note}." for name in names if CONTENDERS[name].note]


def _failures(results: Results) -> list[str]:
    return [f"{CONTENDERS[name].label}: {why.splitlines()[-1]}." for name, why in results.failed.items()]


def _name(setting: Setting) -> str:
    standard = Setting()
    differing = [
        getattr(setting, name)
        for name in ("shape", "device", "dtype", "quantization")
        if getattr(setting, name) != getattr(standard, name)
    ]
    return "-".join(["training", *differing])


def _describe(setting: Setting) -> str:
    quantized = "" if setting.quantization == "none" else f", {setting.quantization}"
    return f"{setting.shape}, {setting.dtype}{quantized}, {setting.device}"


def _versions() -> dict[str, str]:
    packages = ("torch", "transformers", "peft", "accelerate", "trl", "bitsandbytes")
    return {name: version(name) for name in packages if find_spec(name)}


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parsed(options: Sequence[str]) -> Namespace:
    parser = ArgumentParser(prog="python -m bench training", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="a tiny model and few contenders, nothing kept: does it run?"
    )
    parser.add_argument("--shape", choices=SHAPES, default="gpt2-8x512")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--quantization", choices=("none", "4bit"), default="none")
    parser.add_argument("--attention", help="transformers' attn_implementation, such as flash_attention_2")
    parser.add_argument("--threads", type=int, help="default: torch's own choice")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--examples", type=int, default=32, help="of an epoch of the speed part")
    parser.add_argument("--seconds", type=float, default=8.0, help="least time of a contender in a round")
    parser.add_argument("--ceiling-seconds", type=float, default=6.0)
    parser.add_argument("--learning-steps", type=int, default=16, help="steps of 16 examples before held-out scoring")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--learners", nargs="*", choices=CONTENDERS, default=list(LEARNERS), metavar="NAME")
    is_quick = parser.parse_known_args(options)[0].quick
    if is_quick:
        parser.set_defaults(**QUICK)
    return parser.parse_args(options)
