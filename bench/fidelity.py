"""What int8 weights cost in quality: the held-out loss of a model that is trained, with them and without."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from transformers import AutoTokenizer

from bench.engines import prepared_weights
from bench.models import Setting, load_base, prepare_process
from bench.paragraphs import Paragraph
from bench.scoring import held_out_loss

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "worker" / "base_models" / "demo" / "model"
TEXTS = ROOT / "examples" / "handbook" / "documents"  # not what the demo model was trained on
NUM_TOKENS = 128


@dataclass(frozen=True)
class Losses:
    """In nats a token."""

    plain: float
    int8: float
    num_tokens: int

    @property
    def change(self) -> float:
        return self.int8 / self.plain - 1


def weights_losses(setting: Setting) -> Losses:
    """Of the demo model on the handbook's texts."""
    prepare_process(setting)
    rows = _rows()
    demo = replace(setting, shape="demo", dtype="fp32")
    plain = held_out_loss(load_base(demo, DEMO), rows)
    int8 = held_out_loss(prepared_weights(load_base(demo, DEMO).eval(), "int8"), rows)
    return Losses(plain, int8, sum(map(len, rows)))


def _rows() -> list[Paragraph]:
    tokenizer = AutoTokenizer.from_pretrained(str(DEMO), local_files_only=True)
    paths = sorted([*TEXTS.glob("*.md"), *TEXTS.glob("*.txt")])
    tokens = [token for path in paths for token in tokenizer(path.read_text(encoding="utf-8"))["input_ids"]]
    return [tokens[start : start + NUM_TOKENS] for start in range(0, len(tokens) - NUM_TOKENS + 1, NUM_TOKENS)]
