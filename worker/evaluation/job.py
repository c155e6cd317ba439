"""The evaluation job: columns and examples in, a report with every example's answers out."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from pydantic import ValidationError

from shared.claimed_job import ClaimedJob
from shared.errors import InvalidRequest, Superseded
from shared.evaluation_parameters import EvaluationParameters
from shared.evaluation_report import EXAMPLES, REPORT, EvaluationReport, ExampleRow
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.storable import storable
from shared.storage import Storage, disk_errors, publish_folder
from worker.base_models.loading import quiet_transformers
from worker.evaluation.asking import PATIENCE_SECONDS, Asking
from worker.evaluation.contenders import Contender, contenders_of
from worker.evaluation.findings import Measured, report_of, rows_of
from worker.evaluation.judge import judge, num_verdicts
from worker.evaluation.losses import measure_losses, num_losses
from worker.evaluation.made_questions import made_document_id
from worker.evaluation.material import Material, gather
from worker.evaluation.sources import Library
from worker.evaluation.work import Progress, Stopped, Work


def run_evaluation(
    job: ClaimedJob,
    settings: Settings,
    storage: Storage,
    should_stop: Callable[[], bool],
    *,
    patience_seconds: float = PATIENCE_SECONDS,
) -> None:
    """Works on a claimed evaluation job until its report is there, or until `should_stop`: the next attempt goes on
    behind what is on disk. Without any inference worker for `patience_seconds` the report comes without answers.
    Errors of the tree propagate to the caller, who fails the job with them."""
    quiet_transformers()
    try:
        parameters = EvaluationParameters.model_validate(job.claim.parameters)
    except ValidationError as error:
        raise InvalidRequest("The job's parameters are not valid; create it again.") from error
    work = Work(job, settings, storage, parameters, should_stop)
    try:
        measured = _measure(work, patience_seconds)
    except Stopped:
        return
    rows = rows_of(measured)
    if not rows:
        raise work.errors[0] if work.errors else InvalidRequest("Nothing could be measured; see the job's events.")
    report = report_of(measured, rows, work.notes, advises=parameters.purpose == "advice")
    _end(work, report, rows)
    shutil.rmtree(work.folder, ignore_errors=True)


def _measure(work: Work, patience_seconds: float) -> Measured:
    """Losses, answers, verdicts. Raises `Stopped`."""
    contenders, material, library = contenders_of(work), gather(work, made_document_id(work)), Library(work)
    contenders = library.without_rag(contenders)
    if not contenders:
        raise work.errors[0] if work.errors else InvalidRequest("No column is left to compare.")
    work.job.log(f"Comparing {', '.join(one.label for one in contenders)} on {len(material.items)} examples")
    progress = Progress(work.job, _stages(work, contenders, material))
    progress.begin("losses")
    losses = measure_losses(work, contenders, material, progress)
    answers = Asking(work, contenders, material, library, progress, patience_seconds).answers()
    judged = judge(work, contenders, material, answers, progress)
    return Measured(material, contenders, losses, answers, judged)


def _stages(work: Work, contenders: Sequence[Contender], material: Material) -> dict[str, int]:
    return {
        "losses": num_losses(contenders, material),
        "answers": len(material.asked) * len(contenders),
        "verdicts": num_verdicts(work, contenders, material),
    }


def _end(work: Work, report: EvaluationReport, rows: Sequence[ExampleRow]) -> None:
    """The folder in its place, and then the job's end."""
    job, final = work.job, work.storage.evaluation(work.job.claim.job_id)
    staged = work.storage.stage()
    try:
        _write(staged, report, rows)
        work.storage.withdraw(final)  # of an attempt that was killed behind this point
        publish_folder(staged, final)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
    try:
        with job.database.write() as session:
            jobs = JobRepository(session)
            jobs.add_event(job.claim, type="message", level="info", message="The evaluation is ready", data={})
            jobs.succeed(job.claim, report.model_dump(mode="json"))
    except Superseded:
        if job.is_cancelled():  # else another attempt has it, or will
            work.storage.withdraw(final)
        raise


def _write(folder: Path, report: EvaluationReport, rows: Sequence[ExampleRow]) -> None:
    """Raises `DiskFull`."""
    with disk_errors():
        folder.mkdir()
        said = storable(report.model_dump(mode="json"))
        (folder / REPORT).write_text(json.dumps(said, indent=2) + "\n", encoding="ascii")
        with (folder / EXAMPLES).open("w", encoding="ascii") as file:
            file.writelines(json.dumps(row.model_dump(mode="json")) + "\n" for row in rows)
