"""Jobs and the workers that they need."""

from __future__ import annotations

from collections.abc import Iterator

from api.maintenance.findings import Problem, error, warning
from api.maintenance.site import Site
from shared.repositories.jobs import JobRepository
from shared.repositories.workers import FRESH_SECONDS, WorkerRepository

_LEASES = 2.0  # a lost worker's job is taken over within so many leases
_WORKER_OF = {
    "import": "setup",
    "export": "setup",
    "evaluation": "training",
}  # of all other kinds, it is called as they are


def check_leases(site: Site) -> Iterator[Problem]:
    """A job whose worker was lost has been taken over."""
    with site.database.read() as session:
        expired = JobRepository(session).expired((_LEASES - 1.0) * site.settings.lease_seconds)

    def take_over() -> str:
        with site.database.write() as session:
            freed = JobRepository(session).take_over_expired(site.settings.max_crashes)
        return f"{len(freed)} jobs are free for another worker."

    for job_id in expired:
        said = "Its worker is gone and nobody has taken it over: no worker of any kind is running, or none can write."
        yield error("lease_expired", job_id, said, "Takes it from its worker, as a worker would.", take_over)


def check_waiting(site: Site) -> Iterator[Problem]:
    """A job does not wait for one that has failed."""
    with site.database.read() as session:
        stranded = JobRepository(session).stranded()
    for job_id, first_id in stranded:

        def end(first_id: str = first_id) -> str:
            with site.database.write() as session:
                JobRepository(session).end_stranded(first_id)
            return "It has ended."

        said = f"It waits for {first_id}, which did not succeed."
        yield error("job_stranded", job_id, said, "Ends it, as the end of that job should have.", end)


def check_workers(site: Site) -> Iterator[Problem]:
    """There is a worker for each kind of job that waits."""
    with site.database.read() as session:
        waiting, alive = JobRepository(session).waiting_by_kind(FRESH_SECONDS), WorkerRepository(session).count_alive()
    for kind, number in sorted(waiting.items()):
        worker = _WORKER_OF.get(kind, kind)
        if not alive.get(worker):
            said = f"{number} {kind} jobs wait and no {worker} worker is running; start one, or look at its log."
            yield warning("no_worker", kind, said)
