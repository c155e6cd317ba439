"""Jobs: the only place that changes a status, by guarded updates; a trigger records each change."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, and_, func, or_, select, update
from sqlalchemy.orm import Session, aliased

from shared.database import now
from shared.errors import FinetunedError, IllegalTransition, JobNotFound, SetupFailed, Superseded, TrainerCrashed
from shared.ids import PREFIX_BY_JOB_KIND, new_id
from shared.models import Job, JobEvent
from shared.origin import Origin, current_origin
from shared.repositories.callers import key_of
from shared.repositories.paging import page_of
from shared.sweep_parameters import SWEEP

ENDED = ("succeeded", "failed", "cancelled")
HELD = ("running", "pausing")
PAUSABLE = ("training", "batch", "sweep")
LACK_OF_MEMORY = "memory"  # the `cause` of a crash in its event's data


@dataclass(frozen=True)
class Claim:
    """The right to work on a job. `attempt` is the fencing token: it only grows. `num_memory_deaths` counts the
    attempts before it that the kernel killed for lack of memory; `queued_seconds` is how long the job has waited since
    it was last queued; `origin` is the request that created it, and `follows` the job that it has waited for with that
    one's last attempt."""

    job_id: str
    project_id: str
    kind: str
    attempt: int
    owner: str
    parameters: dict[str, Any]
    num_memory_deaths: int = 0
    queued_seconds: float = 0.0
    origin: Origin = field(default_factory=Origin)
    follows: tuple[str, int] | None = None

    @property
    def log_ids(self) -> dict[str, str | int | None]:
        """What lines of the log about this attempt name."""
        adapter = self.parameters.get("adapter")
        return {
            "request_id": self.origin.request_id,
            "job_id": self.job_id,
            "attempt": self.attempt,
            "project_id": self.project_id,
            "adapter": None if adapter is None else str(adapter),
        }


class JobRepository:
    """Reads and moves jobs within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    # What the API does

    def create(
        self, project_id: str, kind: str, parameters: dict[str, Any], *, waits_for: str | None = None, priority: int = 0
    ) -> Job:
        """A new `queued` job; one that `waits_for` another cannot be claimed before that one succeeded."""
        origin = current_origin()
        job = Job(
            id=new_id(PREFIX_BY_JOB_KIND[kind]),
            project_id=project_id,
            kind=kind,
            parameters=parameters,
            waits_for=waits_for,
            priority=priority,
            api_key_id=key_of(self.session),
            origin=None if origin is None else origin.model_dump(exclude_none=True),
        )
        self.session.add(job)
        self.session.flush()
        return job

    def get(self, project_id: str, job_id: str) -> Job:
        job = self.session.get(Job, job_id, populate_existing=True)
        if job is None or job.project_id != project_id:
            raise JobNotFound(param="job_id")
        return job

    def page(
        self, project_id: str, *, kind: str | None = None, status: str | None = None, after: str | None, limit: int
    ) -> Sequence[Job]:
        """Newest first, `limit` + 1 at most (the extra one says that there are more), after the job `after`."""
        wanted = select(Job).where(Job.project_id == project_id)
        if kind is not None:
            wanted = wanted.where(Job.kind == kind)
        if status is not None:
            wanted = wanted.where(Job.status == status)
        cursor = None if after is None else self.get(project_id, after)
        return page_of(self.session, wanted, Job, cursor, limit)

    def events(self, job_id: str, *, type: str | None = None, after: int = 0, limit: int = 100) -> Sequence[JobEvent]:
        """A job's events in order, from the one behind `after`."""
        wanted = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.id > after)
        if type is not None:
            wanted = wanted.where(JobEvent.type == type)
        return self.session.scalars(wanted.order_by(JobEvent.id).limit(limit)).all()

    def queue_position(self, job: Job) -> int | None:
        """How many jobs of its kind will be claimed before this one; None if it does not queue."""
        if job.status != "queued":
            return None
        is_ahead = or_(
            Job.priority < job.priority,
            and_(Job.priority == job.priority, Job.created_at < job.created_at),
        )
        ahead = select(func.count()).where(Job.status == "queued", Job.kind == job.kind, is_ahead)
        return self.session.scalar(ahead) or 0

    def count(self, project_id: str | None) -> dict[str, int]:
        """Number of jobs by status, of one project or of all."""
        wanted = select(Job.status, func.count()).group_by(Job.status)
        rows = self.session.execute(wanted if project_id is None else wanted.where(Job.project_id == project_id))
        return {row[0]: row[1] for row in rows}

    def of_project(self, project_id: str, job_ids: Collection[str]) -> set[str]:
        """Those of the ids that name the project's jobs."""
        wanted = select(Job.id).where(Job.project_id == project_id, Job.id.in_(set(job_ids)))
        return set(self.session.scalars(wanted))

    def cancel(self, project_id: str, job_id: str) -> Job:
        """Ends a job that has not ended. A running attempt loses its claim at once and is stopped by its worker; of a
        sweep, the trials that have not ended are cancelled too."""
        self._move(
            project_id, job_id, ("queued", "running", "pausing", "paused"), status="cancelled", finished_at=now()
        )
        self._fail_waiting(job_id)
        return self.get(project_id, job_id)

    def pause(self, project_id: str, job_id: str) -> Job:
        """A running training writes a checkpoint and then rests (`pausing`, `paused`), a batch its last answers; a
        queued job rests at once. While a sweep rests, no trial begins, and those that run go on to their end."""
        if self.get(project_id, job_id).kind not in PAUSABLE:
            raise IllegalTransition("Only trainings, batches and sweeps can be paused; cancel this job or let it end.")
        if not self._update(Job.id == job_id, Job.status == "queued", status="paused"):
            self._move(project_id, job_id, ("running",), status="pausing")
        return self.get(project_id, job_id)

    def resume(self, project_id: str, job_id: str) -> Job:
        """A paused job queues again and goes on from its last checkpoint."""
        self._move(project_id, job_id, ("paused",), status="queued", queued_at=now())
        return self.get(project_id, job_id)

    # What workers do

    def renew(self, claim: Claim, lease_seconds: float) -> Job:
        """Extends the lease and returns the row; raises `Superseded` if the claim is lost (cancel, takeover)."""
        self._hold(claim, lease_expires_at=now() + lease_seconds)
        return self.session.get_one(Job, claim.job_id, populate_existing=True)

    def hold(self, claim: Claim) -> None:
        """Nobody takes the job from this attempt before the session ends; raises `Superseded` if somebody has."""
        self._hold(claim, progress_at=now())

    def report_progress(self, claim: Claim, progress: dict[str, Any]) -> None:
        self._hold(claim, progress=progress, progress_at=now())

    def add_event(self, claim: Claim, *, type: str, level: str, message: str, data: dict[str, Any]) -> None:
        self._hold(claim, progress_at=now())
        self.session.add(
            JobEvent(job_id=claim.job_id, attempt=claim.attempt, type=type, level=level, message=message, data=data)
        )

    def succeed(self, claim: Claim, result: dict[str, Any]) -> None:
        self._hold(claim, status="succeeded", result=result, finished_at=now())

    def fail(self, claim: Claim, error: FinetunedError, result: dict[str, Any] | None = None) -> None:
        """running → failed, with a part of the result if there is one; and with it the jobs that wait for this one."""
        said = {"error_code": error.code, "error_detail": error.detail}
        self._hold(claim, status="failed", finished_at=now(), **said, **({} if result is None else {"result": result}))
        self._fail_waiting(claim.job_id)

    def cancel_held(self, claim: Claim, result: dict[str, Any]) -> None:
        """The attempt was asked to end the job early, and has done so with a part of the result."""
        self._hold(claim, status="cancelled", result=result, finished_at=now())

    def hand_back(self, claim: Claim) -> None:
        """The attempt stopped on request: a pausing job is paused, any other queues again. No crash is counted."""
        if not self._update(*_held_by(claim), Job.status == "pausing", status="paused"):
            self._hold(claim, status="queued", queued_at=now())

    def crash(self, claim: Claim, max_crashes: int, reason: str, *, is_memory: bool = False) -> None:
        """The attempt died: the job queues again, until it has died `max_crashes` times."""
        self._hold(claim, num_crashes=Job.num_crashes + 1)
        data = {"cause": LACK_OF_MEMORY} if is_memory else {}
        self.add_event(claim, type="message", level="warn", message=reason, data=data)
        self._release_crashed(claim.job_id, max_crashes, reason)

    def clock(self) -> float:
        """The database's clock, by which leases end."""
        return float(self.session.scalar(select(now())) or 0.0)

    def take_over_expired(self, max_crashes: int) -> list[str]:
        """Frees the jobs whose worker was silent for longer than its lease; returns their ids."""
        is_expired = (Job.status.in_(HELD), Job.lease_expires_at < now())
        # One that is frozen in the midst of a transaction holds its own row, and must not hold up the others.
        expired = self.session.scalars(select(Job.id).where(*is_expired).with_for_update(skip_locked=True)).all()
        freed = []
        for job_id in expired:
            is_ours = self._update(
                Job.id == job_id, *is_expired, num_crashes=Job.num_crashes + 1, lease_expires_at=None
            )
            if is_ours:
                self._release_crashed(job_id, max_crashes, "The worker stopped responding.")
                freed.append(job_id)
        return freed

    def claim_next(
        self, kind: str | Collection[str], owner: str, lease_seconds: float, waited_seconds: float = 0.0
    ) -> Claim | None:
        """Claims the job of this kind, or of one of these, that is due first; None if none is. `waited_seconds` passes
        over jobs that have queued for less, whose message is still on its way."""
        kinds = (kind,) if isinstance(kind, str) else tuple(kind)
        first = aliased(Job)
        is_ready = or_(
            Job.waits_for.is_(None),
            select(first.id).where(first.id == Job.waits_for, first.status == "succeeded").exists(),
        )
        # What was queued in the future has waited, too: the clock was set back meanwhile.
        has_waited = func.abs(now() - Job.queued_at) >= waited_seconds
        due = (
            select(Job.id)
            .where(Job.status == "queued", Job.kind.in_(kinds), has_waited, is_ready)
            .order_by(Job.priority, Job.created_at, Job.id)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        job_id = self.session.scalar(due)
        return None if job_id is None else self._claim(job_id, owner, lease_seconds)

    def waiting_for(self, job_id: str) -> Sequence[Job]:
        """The queued jobs that wait for this one."""
        return self.session.scalars(select(Job).where(Job.waits_for == job_id, Job.status == "queued")).all()

    # What is looked for when something went wrong

    def expired(self, seconds: float) -> Sequence[str]:
        """Jobs whose lease ended so many seconds ago, and that nobody has taken over."""
        is_over = Job.lease_expires_at < now() - seconds
        return self.session.scalars(select(Job.id).where(Job.status.in_(HELD), is_over).order_by(Job.id)).all()

    def stranded(self) -> Sequence[tuple[str, str]]:
        """Jobs that have not ended and wait for one that has not succeeded and will not, each with that one's id."""
        first = aliased(Job)
        wanted = (
            select(Job.id, first.id)
            .join(first, first.id == Job.waits_for)
            .where(Job.status.in_(("queued", "paused")), first.status.in_(("failed", "cancelled")))
        )
        return [(row[0], row[1]) for row in self.session.execute(wanted.order_by(Job.id))]

    def end_stranded(self, first_id: str) -> None:
        """Ends the jobs that wait for this one, as its own end would have."""
        if self._status(first_id) in ("failed", "cancelled"):
            self._fail_waiting(first_id)

    def waiting_by_kind(self, seconds: float) -> dict[str, int]:
        """Number of queued jobs by kind that could begin, and have been able to for so long."""
        first = aliased(Job)
        is_ready = or_(
            Job.waits_for.is_(None),
            select(first.id).where(first.id == Job.waits_for, first.status == "succeeded").exists(),
        )
        is_due = and_(Job.status == "queued", Job.queued_at <= now() - seconds, is_ready)
        rows = self.session.execute(select(Job.kind, func.count()).where(is_due).group_by(Job.kind))
        return {row[0]: row[1] for row in rows}

    # How

    def _claim(self, job_id: str, owner: str, lease_seconds: float) -> Claim | None:
        is_claimed = self._update(
            Job.id == job_id,
            Job.status == "queued",
            status="running",
            attempt=Job.attempt + 1,
            owner=owner,
            lease_expires_at=now() + lease_seconds,
            progress_at=now(),
            started_at=func.coalesce(Job.started_at, now()),
        )
        if not is_claimed:
            return None
        job = self.session.get_one(Job, job_id, populate_existing=True)
        deaths = self._num_memory_deaths(job_id) if job.num_crashes else 0
        waited = max(0.0, (job.lease_expires_at or 0.0) - lease_seconds - job.queued_at)
        return Claim(
            job_id=job.id,
            project_id=job.project_id,
            kind=job.kind,
            attempt=job.attempt,
            owner=owner,
            parameters=job.parameters,
            num_memory_deaths=deaths,
            queued_seconds=waited,
            origin=Origin.model_validate(job.origin or {}),
            follows=None if job.waits_for is None else (job.waits_for, self._attempt(job.waits_for)),
        )

    def _attempt(self, job_id: str) -> int:
        return self.session.scalar(select(Job.attempt).where(Job.id == job_id)) or 0

    def _num_memory_deaths(self, job_id: str) -> int:
        is_death = JobEvent.data["cause"].as_string() == LACK_OF_MEMORY
        return self.session.scalar(select(func.count()).where(JobEvent.job_id == job_id, is_death)) or 0

    def _release_crashed(self, job_id: str, max_crashes: int, reason: str) -> None:
        held = (Job.id == job_id, Job.status.in_(HELD))
        detail = f"{TrainerCrashed.cure} Last: {reason}"
        if self._update(
            *held,
            Job.num_crashes >= max_crashes,
            status="failed",
            error_code=TrainerCrashed.code,
            error_detail=detail,
            finished_at=now(),
        ):
            self._fail_waiting(job_id)
        elif not self._update(*held, Job.status == "pausing", status="paused"):
            self._update(*held, status="queued", queued_at=now())

    def _fail_waiting(self, job_id: str) -> None:
        """Ends what waits for a job that has ended badly, and what waits for that."""
        waiting = self.session.scalars(
            update(Job)
            .where(Job.waits_for == job_id, Job.status.in_(("queued", "paused")))
            .values(
                status="cancelled" if self._status(job_id) == "cancelled" else "failed",
                error_code=SetupFailed.code,
                error_detail=SetupFailed.cure,
                finished_at=now(),
            )
            .returning(Job.id),
            execution_options={"synchronize_session": False},
        ).all()
        for one in waiting:
            self._fail_waiting(one)
        if job_id.startswith(PREFIX_BY_JOB_KIND["sweep"]):
            self._cancel_trials(job_id)

    def _cancel_trials(self, sweep_id: str) -> None:
        """What runs for a sweep that has ended badly would be for nothing."""
        is_open = Job.status.in_(("queued", "running", "pausing", "paused"))
        is_trial = Job.parameters[SWEEP].as_string() == sweep_id
        self._update(Job.kind == "training", is_open, is_trial, status="cancelled", finished_at=now())

    def _status(self, job_id: str) -> str | None:
        return self.session.scalar(select(Job.status).where(Job.id == job_id))

    def _hold(self, claim: Claim, **values: Any) -> None:
        if not self._update(*_held_by(claim), **values):
            raise Superseded()

    def _move(self, project_id: str, job_id: str, allowed: tuple[str, ...], **values: Any) -> None:
        job = self.get(project_id, job_id)
        if not self._update(Job.id == job_id, Job.status.in_(allowed), **values):
            raise IllegalTransition(
                f"The job is {job.status}; only a job that is {' or '.join(allowed)} can become {values['status']}."
            )

    def _update(self, *where: ColumnElement[bool], **values: Any) -> int:
        changed = self.session.execute(
            update(Job).where(*where).values(**values), execution_options={"synchronize_session": False}
        )
        return cast(CursorResult[Any], changed).rowcount


def _held_by(claim: Claim) -> tuple[ColumnElement[bool], ...]:
    return (Job.id == claim.job_id, Job.attempt == claim.attempt, Job.status.in_(HELD))
