"""A judge that is asked in both orders: what it says, what it is said to be, and what becomes of one that is away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest

from tests.evaluation.conftest import BASE, V1, Bench, Found
from tests.retrieval.indexing import FakeEndpoint, fake_endpoint
from worker.evaluation.judge import PROMPT_VERSION, verdict_of

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


@pytest.fixture
def judged(bench: Bench) -> Iterator[Callable[..., tuple[Found, FakeEndpoint]]]:
    """Evaluates base and version with a judge that says what `says` makes of its prompt."""
    with fake_endpoint() as endpoint:
        settings = {"openai_base_url": endpoint.url, "judge_model": "judge"}
        ready = replace(bench, settings=bench.settings.model_copy(update=settings))

        def evaluate(says: Callable[[str], str], status: int = 200) -> tuple[Found, FakeEndpoint]:
            respond = endpoint.respond

            def speak(path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
                code, answer = respond(path, body)
                if code == 200:
                    answer["choices"][0]["message"]["content"] = says(body["messages"][0]["content"])
                return code, answer

            endpoint.respond, endpoint.status = speak, status  # type: ignore[method-assign]
            document = ready.upload_questions()
            with ready.answering():
                return ready.evaluate(
                    BASE, V1, setup_job_id=None, question_document_ids=[document], judge=True
                ), endpoint

        yield evaluate


def verdicts(found: Found) -> list[float | None]:
    return [row.answers["handbook@1"].metrics.get("judged") for row in found.rows]


def prefer(text: str, otherwise: str = "tie") -> Callable[[str], str]:
    """A judge that likes an answer that holds `text`, wherever it stands."""

    def says(prompt: str) -> str:
        first = prompt.partition("<answer_a>\n")[2].partition("\n</answer_a>")[0]
        second = prompt.partition("<answer_b>\n")[2].partition("\n</answer_b>")[0]
        return f"Verdict: {'A' if text in first else 'B' if text in second else otherwise}"

    return says


def test_a_judge_that_always_prefers_the_first_answer_gives_ties(judged: Any) -> None:
    found, endpoint = judged(lambda prompt: "I like the first one.\n\n**Verdict: A**")
    assert verdicts(found) == [0.5, 0.5, 0.5]
    assert len(endpoint.requests) == 6
    assert found.report.judge == {
        "model": "judge", "prompt_version": PROMPT_VERSION, "num_pairs": 3, "num_judged": 3, "num_same": 0,
        "num_unreadable": 0, "num_missing": 0,
    }  # fmt: skip
    assert "judged" not in found.rows[0].answers["base"].metrics


def test_an_answer_that_is_preferred_in_both_orders_wins(judged: Any) -> None:
    plain, _ = judged(lambda prompt: "tie")
    ours, theirs = (plain.rows[0].answers[label].text for label in ("handbook@1", "base"))
    assert ours
    assert theirs
    found, _ = judged(prefer(ours))
    assert verdicts(found)[0] == 1.0
    found, _ = judged(prefer(theirs))
    assert verdicts(found)[0] == 0.0


def test_what_cannot_be_read_is_no_verdict_and_is_counted(judged: Any) -> None:
    found, _ = judged(lambda prompt: "Hm." if "Where is the office?" in prompt else "Verdict: tie")
    assert verdicts(found) == [None, 0.5, 0.5]
    judge = found.report.judge or {}
    assert (judge["num_judged"], judge["num_unreadable"], judge["num_missing"]) == (2, 2, 0)


def test_a_judge_that_is_away_is_a_note(judged: Any) -> None:
    found, _ = judged(lambda prompt: "", status=503)
    assert verdicts(found) == [None, None, None]
    assert found.report.notes == ("The judge at OPENAI_BASE_URL did not answer, so 6 of 6 verdicts are missing.",)


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
