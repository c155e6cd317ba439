"""Our engine against `transformers` and PEFT: tokens a second of many answers at once, each by its own adapter, the
share of the weights-bandwidth ceiling, and how step time and memory grow with adapters and sequences."""

from __future__ import annotations

import random
import sys
import tempfile
from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch

from bench.adapters import RANK, save_adapters
from bench.bandwidth import bytes_per_step, read_bandwidth
from bench.children import in_child
from bench.engines import Request
from bench.fidelity import Losses, weights_losses
from bench.generators import CONTENDERS, INT8, OURS, SYSTEMS, Contender, Run, Scene
from bench.growth import publish_growth
from bench.models import SHAPES, Setting, load_base, prepare_process, save_base
from bench.tables import publish, spread

PARTS = ("speed", "growth")
NUM_ADAPTERS, NUM_STREAMS = 8, 16
NUM_WARM_UP = 4  # tokens of each answer
BANDWIDTH = "bandwidth"
REFERENCES = ("generate", "peft")  # systems whose answers the others' are compared with
INT8_TARGET, LOSS_TARGET = 1.5, 0.01
QUICK: dict[str, Any] = {
    "shapes": ["tiny", "tiny-llama"],
    "rounds": 1,
    "prompt_tokens": 8,
    "new_tokens": 8,
    "bandwidth_seconds": 0.1,
    "growth_adapters": [1, 2],
    "growth_sequences": [1, 4],
    "growth_steps": 2,
}


@dataclass(frozen=True)
class Quoted:
    """A figure of another run, of a program that is not installed here."""

    label: str
    num_at_once: int
    tokens_per_second: float
    against: str


# Of llama.cpp, the base model alone, on this benchmark's own kind of machine (2 cores that read 11 to 14 GB/s).
MEASURED_BEFOREHAND: dict[str, tuple[Quoted, ...]] = {
    "llama-134m": (
        Quoted("llama.cpp f32, base", 1, 46, "ours-stream"),
        Quoted("llama.cpp f32, base", NUM_STREAMS, 250, "ours"),
        Quoted("llama.cpp q8_0, base", 1, 95, "ours-int8-stream"),
        Quoted("llama.cpp q8_0, base", NUM_STREAMS, 255, INT8),
    )
}


@dataclass
class Speeds:
    """What was measured of one shape: runs by contender, bytes a second, and why a contender has no figures."""

    runs: dict[str, list[Run]] = field(default_factory=dict)
    bandwidths: list[float] = field(default_factory=list)
    bytes_per_step: int = 0
    num_threads: int = 0
    accelerator: str | None = None
    failed: dict[str, str] = field(default_factory=dict)

    def speed(self, name: str) -> float:
        return median(run.tokens_per_second for run in self.runs[name])

    def ratio(self, ours: str, other: str) -> float | None:
        return self.speed(ours) / self.speed(other) if {ours, other} <= self.runs.keys() else None

    def ceiling(self, num_at_once: int, bytes_a_weight: int | None = None, bytes_here: int = 4) -> float:
        """Tokens a second, if a step only read the weights; `bytes_a_weight` where they are stored smaller."""
        read = self.bytes_per_step * (bytes_a_weight or bytes_here) / bytes_here
        return num_at_once * median(self.bandwidths) / read


def main(options: Sequence[str] = ()) -> None:
    """Prints a row a shape and contender; with `--parts growth` a row a number of adapters and sequences."""
    chosen = _parsed(options)
    settings = [Setting(shape, chosen.device, chosen.dtype, num_threads=chosen.threads) for shape in chosen.shapes]
    if "speed" in chosen.parts:
        speeds = {setting.shape: _measured(setting, chosen) for setting in settings}
        losses = in_child(weights_losses, settings[0]) if _has_int8(chosen) else None
        _publish(settings, chosen, speeds, losses)
    if "growth" in chosen.parts:
        for setting in settings:
            publish_growth(setting, chosen)


def measure(setting: Setting, chosen: Namespace, base: Path, adapters: Sequence[Path]) -> Speeds:
    """Every contender, and the bandwidth among them, once a round, in an order that the rounds rotate. All in one
    process, each system with a copy of the model of its own."""
    prepare_process(setting)
    num_tokens = chosen.prompt_tokens + chosen.new_tokens
    scene = Scene(setting, base, adapters, chosen.streams, num_tokens)
    speeds = Speeds(num_threads=torch.get_num_threads(), bytes_per_step=bytes_per_step(load_base(setting, base)))
    if setting.device == "cuda":
        speeds.accelerator = torch.cuda.get_device_name()
    systems: dict[str, Any] = {}
    for name in chosen.contenders:
        _try(name, speeds, partial(_warm_up, CONTENDERS[name], systems, scene, chosen))
    for number in range(chosen.rounds):
        entries = [*chosen.contenders, BANDWIDTH]
        start = number * len(entries) // chosen.rounds
        for name in [*entries[start:], *entries[:start]]:
            _say(f"{setting.shape}, round {number + 1}/{chosen.rounds}: {name}")
            if name == BANDWIDTH:
                speeds.bandwidths.append(read_bandwidth(setting, chosen.bandwidth_seconds, chosen.bandwidth_bytes))
            elif name not in speeds.failed:
                contender = CONTENDERS[name]
                requests = requests_of(contender, scene, chosen, number)
                run = _try(name, speeds, partial(contender.run, systems[contender.system], requests))
                if run is not None:
                    speeds.runs.setdefault(name, []).append(run)
    if "continuous" in systems:
        systems["continuous"].close()
    return speeds


def requests_of(contender: Contender, scene: Scene, chosen: Namespace, number: int) -> list[Request]:
    """The contender's requests in a round: the same as those of the contenders that it may be compared with, token
    for token, and other prompts than in any other round, lest a cache of prefixes answers."""
    count = contender.num_requests or scene.num_streams
    source = random.Random(f"prompts/{number}/{contender.speaks}/{count}")
    vocabulary = SHAPES[scene.setting.shape].vocab_size
    adapters: dict[str, Sequence[Path | None]] = {"each": scene.adapters, "one": scene.adapters[:1], "base": [None]}
    choice = adapters[contender.speaks]
    return [
        Request(
            [source.randrange(2, vocabulary) for _ in range(chosen.prompt_tokens)],
            chosen.new_tokens,
            choice[index % len(choice)],
        )
        for index in range(count)
    ]


def agreement(name: str, speeds: Speeds) -> tuple[int, int] | None:
    """How many of the contender's answers are those of `transformers` or PEFT to the same requests, token for
    token, and of how many; None where nobody else was asked the same."""
    mine = CONTENDERS[name]
    if mine.is_bare:
        return None
    for other, theirs in CONTENDERS.items():
        is_reference = other != name and theirs.system in REFERENCES and not theirs.is_bare and other in speeds.runs
        if is_reference and (theirs.speaks, theirs.num_requests) == (mine.speaks, mine.num_requests):
            rounds = zip(speeds.runs[name], speeds.runs[other], strict=True)
            pairs = [pair for one, two in rounds for pair in zip(one.answers, two.answers, strict=True)]
            return sum(one == two for one, two in pairs), len(pairs)
    return None


def _measured(setting: Setting, chosen: Namespace) -> Speeds:
    with tempfile.TemporaryDirectory(prefix="bench-inference-") as folder:
        base = Path(folder) / "base"
        in_child(save_base, setting, base)
        adapters = in_child(_save_adapters, setting, base, chosen.adapters)
        return in_child(measure, setting, chosen, base, adapters)


def _save_adapters(setting: Setting, base: Path, count: int) -> list[Path]:
    prepare_process(setting)
    return save_adapters(load_base(setting, base), base.parent / "adapters", count)


def _warm_up(contender: Contender, systems: dict[str, Any], scene: Scene, chosen: Namespace) -> None:
    if contender.system not in systems:
        systems[contender.system] = SYSTEMS[contender.system](scene)
    few = Namespace(**{**vars(chosen), "new_tokens": min(NUM_WARM_UP, chosen.new_tokens)})
    contender.run(systems[contender.system], requests_of(contender, scene, few, -1))


def _try(name: str, speeds: Speeds, work: Any) -> Any:
    """What `work` gives; a contender that fails is told of in the table, and the others go on."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001 - whatever a library raises
        speeds.failed[name] = f"{type(error).__name__}: {error}".splitlines()[0]
        speeds.runs.pop(name, None)
        return None


def _publish(settings: Sequence[Setting], chosen: Namespace, speeds: dict[str, Speeds], losses: Losses | None) -> None:
    rows = [
        row
        for shape, found in speeds.items()
        for row in (
            *(_row(shape, name, found, chosen) for name in chosen.contenders if name in found.runs),
            *(_quoted_row(shape, one, found) for one in MEASURED_BEFOREHAND.get(shape, ())),
        )
    ]
    header = [
        "model", "generation", "at once", "tokens/s, median", "min–max", "ours ÷ it", "target", "share of ceiling",
        "equal answers",
    ]  # fmt: skip
    raw = {
        "settings": [asdict(setting) for setting in settings],
        "options": vars(chosen),
        "versions": {name: version(name) for name in ("torch", "transformers", "peft", "accelerate")},
        "shapes": {shape: _raw(found) for shape, found in speeds.items()},
        "losses": None if losses is None else asdict(losses),
    }
    first = next(iter(speeds.values()))
    publish(
        _name(chosen),
        f"Answering with {chosen.adapters} adapters ({', '.join(chosen.shapes)}; {chosen.dtype}, {chosen.device})",
        header,
        rows,
        raw,
        notes=[*_notes(chosen, speeds), *_int8_notes(chosen, speeds, losses), *_failures(speeds)],
        accelerator=first.accelerator,
        is_kept=not chosen.quick,
    )


def _raw(found: Speeds) -> dict[str, Any]:
    runs = {
        name: [{"seconds": one.seconds, "num_tokens": one.num_tokens, "tokens_per_second": one.tokens_per_second}
               for one in several]
        for name, several in found.runs.items()
    }  # fmt: skip
    equal = {name: agreement(name, found) for name in found.runs}
    return {**{key: value for key, value in vars(found).items() if key != "runs"}, "runs": runs, "equal": equal}


def _row(shape: str, name: str, found: Speeds, chosen: Namespace) -> list[str]:
    contender = CONTENDERS[name]
    num_at_once = contender.num_at_once or chosen.streams
    speeds = spread([run.tokens_per_second for run in found.runs[name]])
    ratio = found.ratio(contender.against, name) if contender.against else None
    bytes_here = 4 if chosen.dtype == "fp32" else 2
    ceiling = found.ceiling(num_at_once, 1 if "int8" in contender.system else None, bytes_here)
    equal = agreement(name, found)
    return [
        shape,
        contender.label,
        str(num_at_once),
        f"{speeds['median']:,.1f}",
        f"{speeds['min']:,.1f}–{speeds['max']:,.1f}",
        "–" if ratio is None else f"{ratio:.2f}",
        "–" if contender.target is None else f"≥ {contender.target:g}",
        f"{speeds['median'] / ceiling:.0%}",
        "–" if equal is None else f"{equal[0]} of {equal[1]}",
    ]


def _quoted_row(shape: str, quoted: Quoted, found: Speeds) -> list[str]:
    has_ours = quoted.against in found.runs
    ratio = f"{found.speed(quoted.against) / quoted.tokens_per_second:.2f}" if has_ours else "–"
    target = "> 1" if quoted.against == INT8 else "–"
    label = f"{quoted.label} (measured beforehand)"
    return [shape, label, str(quoted.num_at_once), f"{quoted.tokens_per_second:g}", "–", ratio, target, "–", "–"]


def _notes(chosen: Namespace, speeds: dict[str, Speeds]) -> list[str]:
    first = next(iter(speeds.values()))
    return [
        f"{chosen.streams} requests at once over {chosen.adapters} adapters of rank {RANK} on all linear layers of the "
        f"blocks, {chosen.prompt_tokens} prompt + {chosen.new_tokens} new tokens, greedy, no end token, weights "
        f"random; {first.num_threads} threads. Tokens a second count new tokens and include the prompts' pass, except "
        "in a bare forward step.",
        f"{chosen.rounds} rounds in one process, every contender once a round after {NUM_WARM_UP} untimed tokens, each "
        "system on a copy of the model of its own; prompts differ from round to round. One at a time: 2 requests, "
        "one after the other.",
        *(f"{shape}: {_ceiling_note(found, chosen)}" for shape, found in speeds.items()),
        "Ours ÷ it: 8 adapters at once, or one stream of the base model, against it. Merged into the weights, one "
        "adapter generates as the base does. transformers' continuous batching has a cache sized to the load: as "
        "shipped it takes most of the free memory and clears it first.",
        "Equal answers: token for token those of generate (each by its adapter) to the same requests.",
    ]


def _ceiling_note(found: Speeds, chosen: Namespace) -> str:
    gigabytes = spread([one / 1e9 for one in found.bandwidths])
    return (
        f"a step reads {found.bytes_per_step / 1e6:,.0f} MB of weights, memory gives {gigabytes['median']:.1f} GB/s "
        f"({gigabytes['min']:.1f}–{gigabytes['max']:.1f}): the ceiling is {found.ceiling(1):,.1f} tokens/s for one "
        f"stream and {found.ceiling(chosen.streams):,.0f} for {chosen.streams}, were a step that reading alone "
        "(with int8 weights a quarter of it)."
    )


def _int8_notes(chosen: Namespace, speeds: dict[str, Speeds], losses: Losses | None) -> list[str]:
    notes = []
    for shape, found in speeds.items():
        ratio = found.ratio(INT8, OURS)
        if ratio is not None:
            notes.append(f"{shape}: int8 weights give {ratio:.2f} × our fp32 (target ≥ {INT8_TARGET:g}).")
    if losses is not None:
        notes.append(
            f"Held-out loss of the demo model, which is trained, on {losses.num_tokens:,} tokens: {losses.plain:.4f}, "
            f"with int8 weights {losses.int8:.4f} ({losses.change:+.2%}, target within {LOSS_TARGET:.0%})."
        )
    return notes


def _failures(speeds: dict[str, Speeds]) -> list[str]:
    return [
        f"{shape}, {name}: no figures: {why}" for shape, found in speeds.items() for name, why in found.failed.items()
    ]


def _name(chosen: Namespace) -> str:
    differing = [one for one in (chosen.device, chosen.dtype) if one not in ("cpu", "fp32")]
    return "-".join(["inference", *(["int8"] if _has_int8(chosen) else []), *differing])


def _has_int8(chosen: Namespace) -> bool:
    return "int8" in chosen.weights or any("int8" in name for name in chosen.contenders or ())


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _parsed(options: Sequence[str]) -> Namespace:
    parser = _parser()
    if parser.parse_known_args(options)[0].quick:
        parser.set_defaults(**QUICK)
    chosen = parser.parse_args(options)
    if _has_int8(chosen) and chosen.device != "cpu":
        raise SystemExit("int8 weights are measured on a CPU; on a GPU bitsandbytes makes them while a model loads.")
    if chosen.contenders is None:
        chosen.contenders = [name for name in CONTENDERS if "int8" not in name or _has_int8(chosen)]
    return chosen


def _parser() -> ArgumentParser:
    parser = ArgumentParser(prog="python -m bench inference", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="tiny models, nothing kept: does it run?")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=["speed"], metavar="PART")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["gpt2-124m", "llama-134m"], metavar="SHAPE")
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, metavar="NAME", help=", ".join(CONTENDERS))
    parser.add_argument("--weights", nargs="+", choices=("fp32", "int8"), default=["fp32"], help="of our engine")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--dtype", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--streams", type=int, default=NUM_STREAMS)
    parser.add_argument("--adapters", type=int, default=NUM_ADAPTERS)
    parser.add_argument("--prompt-tokens", type=int, default=64)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--bandwidth-seconds", type=float, default=1.0)
    parser.add_argument("--bandwidth-bytes", type=int, help="of the tensor that is read; default: far beyond caches")
    parser.add_argument("--growth-adapters", nargs="+", type=int, default=[1, 8, 64])
    parser.add_argument("--growth-sequences", nargs="+", type=int, default=[1, 4, 16, 64])
    parser.add_argument("--growth-steps", type=int, default=16)
    return parser
