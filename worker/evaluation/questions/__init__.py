"""Questions made from documents, with the answers that stand there."""

from __future__ import annotations

import random
from collections.abc import Sequence

from shared.question_files import Question
from worker.data.texts import ExtractedText
from worker.evaluation.questions.cloze import cloze_questions


def make_questions(texts: Sequence[ExtractedText], num_questions: int, seed: int) -> list[Question]:
    """At most so many questions, spread over the documents as evenly as these allow; the same for the same seed.

    Fewer come of documents with few sentences that tell something. No two ask for the same sentence, in any document.
    """
    by_text = [cloze_questions(text) for text in texts]
    for number, questions in enumerate(by_text):
        random.Random(f"questions/{seed}/{number}").shuffle(questions)
    made: dict[str, Question] = {}
    while len(made) < num_questions and any(by_text):
        for questions in by_text:
            if questions and len(made) < num_questions:
                question = questions.pop()
                made.setdefault(question.question.casefold(), question)
    return list(made.values())
