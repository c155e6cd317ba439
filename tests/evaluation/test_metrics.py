"""Metrics of answers: equal to those of sacrebleu, rouge-score and SQuAD's script, and of use beyond English."""

from __future__ import annotations

import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer

from worker.evaluation.metrics import MOST_ROUGE_TOKENS, answer_metrics, corpus_metrics

PAIRS = [
    ("The heron nests at the lake.", "A heron nests near the lake"),
    ("28 days", "28 days a year"),
    ("It is due on Monday, at 9:30 a.m.", "on Monday at half past nine"),
    ("No.", "Yes, all employees may use the workshop."),
    ("", "28 days"),
    ("a snake_case word's end", "snake_case words end"),
    ("Der Schlüssel liegt beim Empfang.", "Der Schlüssel liegt am Empfang."),
]
# Worked out by the rules of the script that SQuAD 1.1 is evaluated with: (exact match, F1).
SQUAD = [
    ("The Heron.", "the heron", 1.0, 1.0),
    ("an  apple,\na pear", "apple pear", 1.0, 1.0),
    ("1,200 euros", "1200 Euros", 1.0, 1.0),
    ("28 days a year", "28 days", 0.0, 2 * (2 / 3) * 1 / (2 / 3 + 1)),  # "a" is no token
    ("red red blue", "red green", 0.0, 2 * (1 / 3) * (1 / 2) / (1 / 3 + 1 / 2)),  # each token counts once
    ("theatre", "atre", 0.0, 0.0),
    ("3.5", "35", 1.0, 1.0),
    ("", "28 days", 0.0, 0.0),
]


@pytest.mark.parametrize(("answer", "wanted"), PAIRS)
def test_bleu_and_chrf_are_those_of_sacrebleu(answer: str, wanted: str) -> None:
    found = answer_metrics(answer, wanted)
    assert found["bleu"] == pytest.approx(sacrebleu.sentence_bleu(answer, [wanted]).score)
    assert found["chrf"] == pytest.approx(sacrebleu.sentence_chrf(answer, [wanted]).score)


@pytest.mark.parametrize(("answer", "wanted"), [pair for pair in PAIRS if "".join(pair).isascii()])
def test_rouge_l_is_that_of_rouge_score(answer: str, wanted: str) -> None:
    reference = RougeScorer(["rougeL"]).score(wanted, answer)["rougeL"].fmeasure
    assert answer_metrics(answer, wanted)["rouge_l"] == pytest.approx(reference)


@pytest.mark.parametrize(("answer", "wanted", "exact", "f1"), SQUAD)
def test_exact_match_and_f1_follow_the_rules_of_squad(answer: str, wanted: str, exact: float, f1: float) -> None:
    found = answer_metrics(answer, wanted)
    assert (found["exact_match"], found["f1"]) == (exact, pytest.approx(f1))


def test_corpus_metrics_are_those_of_sacrebleu() -> None:
    answers, wanted = [list(side) for side in zip(*PAIRS, strict=True)]
    assert corpus_metrics(answers, wanted) == {
        "corpus_bleu": pytest.approx(sacrebleu.corpus_bleu(answers, [wanted]).score),
        "corpus_chrf": pytest.approx(sacrebleu.corpus_chrf(answers, [wanted]).score),
    }


def test_of_several_accepted_answers_the_nearest_counts() -> None:
    found = answer_metrics("28 days", ["four weeks", "28 days"])
    assert found == {"exact_match": 1.0, "f1": 1.0, "rouge_l": 1.0, "chrf": 100.0, "bleu": pytest.approx(100.0)}
    several = [["four weeks", "28 days"], "Monday"]
    together = sacrebleu.corpus_chrf(["28 days", "on Monday"], [["four weeks", "Monday"], ["28 days", None]])
    assert corpus_metrics(["28 days", "on Monday"], several)["corpus_chrf"] == pytest.approx(together.score)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ValueError, match="one wanted answer"):
        answer_metrics("28 days", [])
    with pytest.raises(ValueError, match="1 answers cannot be compared with 2"):
        corpus_metrics(["one"], ["one", "two"])
    assert corpus_metrics([], []) == {}


@pytest.mark.parametrize("text", ["+", "A", "the", "?!", "👍", "٣", "हिन्दी", "年次有給休暇は二十七日です", "Größe"])
def test_an_answer_that_is_the_wanted_one_is_right_in_every_script(text: str) -> None:
    found = answer_metrics(text, text)
    assert (found["exact_match"], found["f1"], found["rouge_l"], found["chrf"]) == (1.0, 1.0, 1.0, 100.0)


@pytest.mark.parametrize(("answer", "wanted"), [("+", "-"), ("", "A"), ("The", "A"), ("", "+"), ("👍", "👎")])
def test_answers_of_signs_or_articles_alone_are_told_apart(answer: str, wanted: str) -> None:
    found = answer_metrics(answer, wanted)
    assert (found["exact_match"], found["f1"], found["rouge_l"]) == (0.0, 0.0, 0.0)


def test_one_wrong_character_of_a_script_without_spaces_is_not_all_wrong() -> None:
    found = answer_metrics("年次有給休暇は二十七日です。", "年次有給休暇は二十六日です")
    assert found["exact_match"] == 0.0
    assert (found["f1"], found["rouge_l"]) == (pytest.approx(12 / 13), pytest.approx(12 / 13))
    assert found["bleu"] > 50
    assert answer_metrics("年次有給休暇。", "年次有給休暇")["exact_match"] == 1.0


def test_letters_with_marks_are_not_dropped_from_rouge() -> None:
    assert answer_metrics("Schlüssel", "Schlosssel")["rouge_l"] == 0.0
    assert answer_metrics("की", "का")["rouge_l"] == 0.0


def test_a_very_long_answer_is_compared_by_its_beginning() -> None:
    words = [f"word{number}" for number in range(MOST_ROUGE_TOKENS)]
    assert answer_metrics(" ".join([*words, "end"]), " ".join([*words, "other"]))["rouge_l"] == 1.0
