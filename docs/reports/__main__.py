"""`python -m docs.reports`: asks for advice on the example handbook, on a stack of its own, and keeps both reports.

The first is about the handbook's own questions and such that are made of its documents. The second is about questions
whose answers are in no document (numbers that were drawn), so that neither tuning nor retrieval can help.
"""

from __future__ import annotations

import json
import random
import tempfile
from pathlib import Path
from typing import Any

from cli.client import Client, check_accepted
from cli.commands.stack import stopping_on_signals
from cli.demo.handbook import FOLDER, read_handbook
from cli.demo.training import BASE_MODEL, CONFIG, MAX_NEW_TOKENS
from cli.following import follow, succeeded, view_for
from cli.local_stack.local import LocalStack, Shape
from cli.output import console, print_line
from cli.settings import service_settings

REPORTS = Path(__file__).parent
_ENVIRONMENT = {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1", "FINETUNED_EVALUATE_AFTER_TRAINING": "false"}
_NUM_MADE = 60
_NUM_HOPELESS = 40
_MADE_BY = "<!-- Made by `python -m docs.reports`; figures of one run, times on two cores without a GPU. -->\n\n"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="finetuned-reports-") as temporary:
        own = {"data_dir": Path(temporary) / "data", "port": 0, "base_model": BASE_MODEL}
        settings = service_settings().model_copy(update={**own, "database_url": None, "redis_url": None})
        local = LocalStack(settings, Shape(env=_ENVIRONMENT), print_line)
        with stopping_on_signals(local.stack), local as stack:
            if stack.start() and stack.wait_ready():
                stack.watch_during(lambda: _make(local.client, Path(temporary)))


def _make(client: Client, folder: Path) -> None:
    book = read_handbook(FOLDER)
    document_ids = _uploaded(client, list(book.documents))
    questions = _uploaded(client, [FOLDER / "questions.jsonl"], purpose="questions")[0]
    common = {"document_ids": document_ids, "model": BASE_MODEL, "max_new_tokens": MAX_NEW_TOKENS, **CONFIG}
    _advise(client, "handbook", {**common, "question_document_id": questions, "num_questions": _NUM_MADE})
    hopeless = folder / "hopeless.jsonl"
    hopeless.write_text(_hopeless(), encoding="utf-8")
    nothing = _uploaded(client, [hopeless], purpose="questions")[0]
    _advise(client, "nothing-helps", {**common, "question_document_id": nothing, "num_epochs": 4})


def _hopeless() -> str:
    drawn = random.Random(0)
    lines = (
        {"question": f"What is the number of locker {locker}?", "answer": str(drawn.randrange(10_000, 100_000))}
        for locker in range(1, _NUM_HOPELESS + 1)
    )
    return "".join(json.dumps(line) + "\n" for line in lines)


def _uploaded(client: Client, files: list[Path], **purpose: str) -> list[str]:
    uploaded = client.upload(files, **purpose)
    check_accepted(uploaded)
    return [str(one["id"]) for one in uploaded]


def _advise(client: Client, name: str, wanted: dict[str, Any]) -> None:
    jobs = client.advise({"adapter": name, **wanted})
    with view_for(console()) as view:
        for kind in ("setup_job_id", "training_job_id", "evaluation_job_id"):
            succeeded(follow(client, str(jobs[kind]), view).job)
    made = REPORTS / f"{name}.md"
    made.unlink(missing_ok=True)
    client.download(f"/fine-tuning/evaluations/{jobs['evaluation_job_id']}/report?format=markdown", made)
    made.write_text(_MADE_BY + made.read_text(encoding="utf-8"), encoding="utf-8")
    print_line(f"{made}: {client.evaluation(jobs['evaluation_job_id'])['recommendation']['choice']}")


if __name__ == "__main__":
    main()
