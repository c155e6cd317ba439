"""An evaluation whose process is killed again and again under a real supervisor."""

from __future__ import annotations

import redis

from shared.queue import Doorbell, celery_app
from shared.streams import replies_of
from tests.evaluation.conftest import BASE, V1, Bench
from tests.evaluation.dying import KEPT_ANSWER, KEPT_LOSS, NUM_DEATHS, RUNNER
from worker.jobs.child import forkserver_for
from worker.jobs.supervisor import Supervisor


def test_killed_attempts_are_followed_by_one_that_goes_on_behind_what_is_on_disk_and_reports_once(bench: Bench) -> None:
    settings = bench.settings.model_copy(update={"max_crashes": NUM_DEATHS + 1})
    supervisor = Supervisor(
        kind="evaluation", owner="tests", settings=settings, database=bench.database,
        doorbell=Doorbell(celery_app(settings)), runner=RUNNER, processes=forkserver_for(RUNNER),
        is_stopping=lambda: False,
    )  # fmt: skip
    job_id = bench.create(BASE, V1).id
    with bench.answering():
        supervisor.work()
        job = bench.row(job_id)
        assert (job.status, job.attempt, job.num_crashes) == ("succeeded", NUM_DEATHS + 1, NUM_DEATHS)
        whole = bench.evaluate(BASE, V1)
    found = bench.found(job_id)
    pairs = [
        (answer, other.answers[label])
        for row, other in zip(found.rows, whole.rows, strict=True)
        for label, answer in row.answers.items()
    ]
    losses = [(one.metrics.get("loss"), two.metrics.get("loss")) for one, two in pairs]
    assert [one for one, two in losses if one != two] == [KEPT_LOSS]
    assert [one.text for one, two in pairs if one.text != two.text] == [KEPT_ANSWER]
    assert bench.messages(job_id).count("The evaluation is ready") == 1
    assert len(list((bench.storage.root / "evaluations").iterdir())) == 2  # its report, and the undisturbed one's
    with redis.Redis.from_url(settings.resolved_redis_url) as client:
        assert client.exists(replies_of(job_id)) == 0
