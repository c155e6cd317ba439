"""The example handbook: its documents, and questions about them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from cli.errors import CommandError

FOLDER = Path(__file__).parents[2] / "examples" / "handbook"


class HandbookQuestion(BaseModel):
    """A question and its answer. `seen`: the training data hold the answer; `source` is the document's name."""

    model_config = ConfigDict(frozen=True)

    question: str
    answer: str
    seen: bool
    source: str


@dataclass(frozen=True)
class Handbook:
    """What is learned, and what is asked."""

    documents: tuple[Path, ...]
    questions: tuple[HandbookQuestion, ...]


def read_handbook(folder: Path) -> Handbook:
    """Reads `documents/` and `questions.jsonl`."""
    try:
        documents = sorted(path for path in (folder / "documents").iterdir() if path.is_file())
        lines = (folder / "questions.jsonl").read_text(encoding="utf-8").splitlines()
        questions = [HandbookQuestion.model_validate_json(line) for line in lines if line.strip()]
    except OSError as error:
        raise CommandError(
            f"There is no handbook in {folder}; run the demo in a checkout of the repository, or name the folder "
            "with --handbook."
        ) from error
    except ValidationError as error:
        raise CommandError(f"{folder / 'questions.jsonl'} is not a list of questions.") from error
    return Handbook(tuple(documents), tuple(questions))
