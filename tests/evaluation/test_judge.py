"""A judge that is asked in both orders: what it says, what it is said to be, and what becomes of one that is away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from shared.evaluation_parameters import EvaluationParameters
from shared.messages import Turn
from tests.evaluation.conftest import BASE, QUESTIONS, V1, Bench
from tests.retrieval.indexing import FakeEndpoint, fake_endpoint
from worker.base_models.formats import PromptFormat
from worker.evaluation.answers import Given
from worker.evaluation.contenders import Contender
from worker.evaluation.judge import PROMPT_VERSION, Judged, judge, verdict_of
from worker.evaluation.material import Item, Language, Material
from worker.evaluation.work import Progress, Work

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")
CONTENDERS = [Contender(0, BASE, "demo"), Contender(1, V1, "demo")]
ITEMS = tuple(
    Item(number, "questions", turns=(Turn(role="user", content=asked),), wanted=said, is_asked=True)
    for number, (asked, said) in enumerate(QUESTIONS, 1)
)
Says = Callable[[str], str]


class Court:
    """A judge at an endpoint, and three questions that the base and a version have answered: `base 1`, `version 1`."""

    def __init__(self, bench: Bench, endpoint: FakeEndpoint) -> None:
        settings = {"openai_base_url": endpoint.url, "judge_model": "judge"}
        self.bench = replace(bench, settings=bench.settings.model_copy(update=settings))
        self.endpoint = endpoint
        self.answers = {
            (item.number, index): Given(f"{name} {item.number}", None)
            for item in ITEMS
            for index, name in enumerate(("base", "version"))
        }
        self.notes: list[str] = []

    def judge(self, says: Says, should_stop: Callable[[], bool] = lambda: False) -> Judged:
        """A new job's verdicts."""
        respond = self.endpoint.respond

        def speak(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
            self.endpoint.text = says(body["messages"][0]["content"])
            return respond(path, body)

        self.endpoint.respond = speak  # type: ignore[method-assign]
        job = self.bench.claim(self.bench.create(BASE, V1, judge=True))
        parameters = EvaluationParameters.model_validate(job.claim.parameters)
        work = Work(job, self.bench.settings, self.bench.storage, parameters, should_stop)
        material = Material(ITEMS, Language(PromptFormat.TEXT, ""))
        found = judge(work, CONTENDERS, material, self.answers, Progress(job, {"verdicts": 6}))
        self.notes = work.notes
        return found


@pytest.fixture
def court(bench: Bench) -> Iterator[Court]:
    with fake_endpoint() as endpoint:
        yield Court(bench, endpoint)


def prefers(text: str) -> Says:
    """A judge that likes an answer that holds `text`, wherever it stands."""

    def says(prompt: str) -> str:
        first = prompt.partition("<answer_a>\n")[2].partition("\n</answer_a>")[0]
        return f"Because.\n**Verdict: {'A' if text in first else 'B'}**"

    return says


def test_a_judge_that_always_prefers_the_first_answer_gives_ties(court: Court) -> None:
    # Its words hold marks that end a line elsewhere.
    found = court.judge(lambda prompt: "I like\u2028the first\x85one.\n\nVerdict: A")
    assert found.verdicts == {(1, 1): 0.5, (2, 1): 0.5, (3, 1): 0.5}
    assert len(court.endpoint.requests) == 6
    assert found.about == {
        "model": "judge", "prompt_version": PROMPT_VERSION, "num_pairs": 3, "num_judged": 3, "num_same": 0,
        "num_unreadable": 0, "num_missing": 0,
    }  # fmt: skip


@pytest.mark.parametrize(("liked", "verdict"), [("version", 1.0), ("base", 0.0)])
def test_an_answer_that_is_preferred_in_both_orders_wins(court: Court, liked: str, verdict: float) -> None:
    assert set(court.judge(prefers(liked)).verdicts.values()) == {verdict}


def test_what_cannot_be_read_is_no_verdict_and_is_counted(court: Court) -> None:
    found = court.judge(lambda prompt: "Hm." if QUESTIONS[0][0] in prompt else "Verdict: tie")
    assert found.verdicts == {(2, 1): 0.5, (3, 1): 0.5}
    assert found.about is not None
    assert (found.about["num_judged"], found.about["num_unreadable"], found.about["num_missing"]) == (2, 2, 0)


def test_equal_answers_are_a_tie_and_missing_ones_are_not_judged(court: Court) -> None:
    court.answers[1, 1] = court.answers[1, 0]
    court.answers[2, 1] = Given(None, "too long")
    found = court.judge(prefers("version"))
    assert found.verdicts == {(1, 1): 0.5, (3, 1): 1.0}
    assert len(court.endpoint.requests) == 2


def test_a_judge_that_is_away_is_a_note(court: Court) -> None:
    court.endpoint.status = 503
    assert court.judge(lambda prompt: "").verdicts == {}
    assert court.notes == ["The judge at OPENAI_BASE_URL did not answer, so 6 of 6 verdicts are missing."]


def test_a_judged_evaluation_says_by_whom(bench: Bench) -> None:
    with fake_endpoint() as endpoint:
        settings = {"openai_base_url": endpoint.url, "judge_model": "judge"}
        ready = replace(bench, settings=bench.settings.model_copy(update=settings))
        endpoint.text = "Verdict: B"
        with ready.answering():
            found = ready.evaluate(BASE, V1, max_questions=1, judge=True)
    (row,) = [row for row in found.rows if row.answers["base"].text is not None]
    assert row.answers["handbook@1"].metrics["judged"] == 0.5
    assert "judged" not in row.answers["base"].metrics
    assert found.report.judge is not None
    assert found.report.judge["model"] == "judge"


def test_without_a_judge_in_the_settings_that_is_said(bench: Bench) -> None:
    found = bench.evaluate(BASE, max_questions=0, judge=True)
    assert found.report.notes == (
        "There is no judge: set FINETUNED_JUDGE_MODEL and OPENAI_BASE_URL on the training worker.",
    )


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ("Verdict: A", "a"),
        ("verdict: b.", "b"),
        ("**Verdict**: tie", "tie"),
        ("Verdict: A? No.\nVerdict: B", "b"),
        (" B ", "b"),
        ("A", "a"),
        ("Answer A is better", None),
        ("Verdict: both", None),
        ("", None),
    ],
)
def test_verdicts_are_read_strictly(text: str, verdict: str | None) -> None:
    assert verdict_of(text) == verdict
