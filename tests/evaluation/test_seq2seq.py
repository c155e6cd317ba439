"""A base model that is asked and answers (T5): what an evaluation says of it is what transformers says."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer, PreTrainedModel

from shared.evaluation_parameters import Column
from shared.evaluation_report import ExampleRow
from tests.evaluation.conftest import BASE, QUESTIONS, Bench
from tests.inference.tiny import publish
from tests.tiny_models import make_model, make_tokenizer

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")

NUM_TOKENS = 6


@pytest.fixture(scope="module")
def t5(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny T5 whose answers vary, with weights so small that rounding does not (its attention is not scaled down)."""
    folder = tmp_path_factory.mktemp("models") / "t5"
    model = make_model("t5")
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=0.1)
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


class Reference:
    """The model as transformers and PEFT have it, asked in their own way."""

    def __init__(self, base: Path, adapter: Path | None) -> None:
        model: PreTrainedModel | PeftModel = AutoModelForSeq2SeqLM.from_pretrained(base)
        self.model = (model if adapter is None else PeftModel.from_pretrained(model, adapter)).eval()
        self.tokenizer = AutoTokenizer.from_pretrained(base)

    @torch.no_grad()
    def score(self, row: ExampleRow) -> tuple[float, float, int]:
        """Loss by transformers' own, the share of tokens that were the likeliest, and their number."""
        labels = self._ids(row.wanted)
        out = self.model(input_ids=self._ids(row.question), labels=labels)
        return float(out.loss), float((out.logits.argmax(-1) == labels).float().mean()), labels.numel()

    def answer(self, question: str | None) -> str:
        asked = {"input_ids": (ids := self._ids(question)), "attention_mask": torch.ones_like(ids)}
        tokens = self.model.generate(**asked, max_new_tokens=NUM_TOKENS, do_sample=False)[0]
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True)).strip()

    def _ids(self, text: str | None) -> torch.Tensor:
        return torch.tensor([[*self.tokenizer(text).input_ids, self.tokenizer.eos_token_id]])


def test_losses_and_answers_of_a_seq2seq_base_and_its_version_are_those_of_transformers(bench: Bench, t5: Path) -> None:
    publish(bench.database, bench.storage, t5, "flan", 1, architecture="t5")
    document = bench.upload_questions()
    with bench.answering():
        found = bench.evaluate(
            BASE, Column(adapter="flan", version=1), base_model=str(t5), setup_job_id=None, general=True,
            question_document_ids=[document], max_new_tokens=NUM_TOKENS,
        )  # fmt: skip
    asked = found.of("questions")
    assert [(row.question, row.wanted) for row in asked] == QUESTIONS
    answered = [row for row in found.of("general") if row.question is not None]
    assert len(answered) > 20
    texts = {}
    for label, folder in {"base": None, "flan@1": bench.storage.version("version-flan-1")}.items():
        reference = Reference(t5, folder)
        for row in (*asked, *answered):
            loss, accuracy, num_tokens = reference.score(row)
            assert row.num_tokens == num_tokens
            assert row.answers[label].metrics["loss"] == pytest.approx(loss, abs=1e-5)
            assert row.answers[label].metrics["token_accuracy"] == pytest.approx(accuracy, abs=1e-6)
        texts[label] = [reference.answer(row.question) for row in asked]
        assert [(row.answers[label].text or "").strip() for row in asked] == texts[label]
        metrics = asked[0].answers[label].metrics
        assert metrics["prompt_tokens"] == len(asked[0].question or "") + 1  # and the end token
    assert texts["base"] != texts["flan@1"]
    assert not found.report.notes
