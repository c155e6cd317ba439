"""Webhooks: endpoints, and the deliveries that are made from the events of jobs, claimed, retried and ended."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, Select, String, select, update
from sqlalchemy import cast as as_type
from sqlalchemy.orm import Session

from shared.database import now
from shared.errors import NotFound
from shared.ids import new_id
from shared.models import Job, JobEvent, WebhookDelivery, WebhookEndpoint
from shared.repositories.jobs import ENDED
from shared.repositories.paging import page_of
from shared.webhook_events import JOB_KINDS, event_payload, event_type_of

# So long deliveries are kept at least. The ends of jobs that lie further back are not delivered any more: whether they
# have been is forgotten.
DELIVERY_DAYS = 30.0
_HORIZON_SECONDS = (DELIVERY_DAYS - 1.0) * 86_400.0
# Of a job's events only its end has one of these as `to`, and a job ends once.
_EVENT_ID = "evt_" + Job.id + "_" + as_type(JobEvent.id, String)


@dataclass(frozen=True)
class ClaimedDelivery:
    """The right to send one event to one endpoint. `num_attempts` counts this attempt, and fences: it only grows."""

    id: str
    endpoint_id: str
    url: str
    secret: str
    event_id: str
    payload: dict[str, Any]
    num_attempts: int


class WebhookRepository:
    """Reads and writes endpoints and deliveries within one session."""

    def __init__(self, session: Session) -> None:
        self.session = session

    # What clients do

    def create(self, project_id: str, url: str, secret: str, events: Sequence[str]) -> WebhookEndpoint:
        endpoint = WebhookEndpoint(
            id=new_id("webhook-"), project_id=project_id, url=url, secret=secret, events=list(events)
        )
        self.session.add(endpoint)
        self.session.flush()
        return endpoint

    def get(self, project_id: str, endpoint_id: str) -> WebhookEndpoint:
        endpoint = self.session.get(WebhookEndpoint, endpoint_id, populate_existing=True)
        if endpoint is None or endpoint.project_id != project_id or endpoint.deleted_at is not None:
            raise NotFound("No such webhook; GET /webhooks lists them.", param="webhook_id")
        return endpoint

    def page(self, project_id: str, *, after: str | None, limit: int) -> Sequence[WebhookEndpoint]:
        """Newest first, `limit` + 1 at most (the extra one says that there are more), after the endpoint `after`."""
        wanted = select(WebhookEndpoint).where(
            WebhookEndpoint.project_id == project_id, WebhookEndpoint.deleted_at.is_(None)
        )
        cursor = None if after is None else self.get(project_id, after)
        return page_of(self.session, wanted, WebhookEndpoint, cursor, limit)

    def delete(self, project_id: str, endpoint_id: str) -> None:
        """Nothing is sent there any more, what waits included."""
        self.get(project_id, endpoint_id).deleted_at = self.clock()
        self._give_up_on(endpoint_id, "The webhook was deleted.")

    def deliveries(
        self, project_id: str, endpoint_id: str, *, after: str | None, limit: int
    ) -> Sequence[WebhookDelivery]:
        """An endpoint's deliveries, newest first, `limit` + 1 at most."""
        wanted = select(WebhookDelivery).where(WebhookDelivery.endpoint_id == self.get(project_id, endpoint_id).id)
        cursor = None if after is None else self._delivery(endpoint_id, after)
        return page_of(self.session, wanted, WebhookDelivery, cursor, limit)

    # What the sender does

    def clock(self) -> float:
        """The database's time."""
        return self.session.scalar(select(now())) or 0.0

    def is_any_due(self) -> bool:
        """Whether there is something for `claim_due`."""
        return self.session.scalar(select(WebhookDelivery.id).where(*_is_due()).limit(1)) is not None

    def undelivered(self, since: float) -> list[WebhookDelivery]:
        """A delivery, not yet added, for each event since then and each endpoint that wants it and has none for it."""
        return [one for endpoint in self._active() for one in self._undelivered_to(endpoint, since)]

    def add_undelivered(self, since: float) -> None:
        """Adds these deliveries. If another process does the same just now, one of the two gets an `IntegrityError`."""
        self.session.add_all(self.undelivered(since))
        self.session.flush()

    def claim_due(self, limit: int, lease_seconds: float) -> list[ClaimedDelivery]:
        """Claims what is due first. A delivery whose sender died is due again when its lease ends."""
        wanted = (
            select(WebhookDelivery, WebhookEndpoint)
            .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
            .where(*_is_due(), WebhookEndpoint.deleted_at.is_(None))
            .order_by(WebhookDelivery.due_at, WebhookDelivery.id)
            .limit(limit)
            .with_for_update(skip_locked=True, of=WebhookDelivery)
        )
        found = self.session.execute(wanted).tuples().all()
        return [_claimed(*row) for row in found if self._claim(row[0], lease_seconds)]

    def succeed(self, claim: ClaimedDelivery) -> None:
        self._end(claim, status="delivered", last_error=None)

    def retry(self, claim: ClaimedDelivery, error: str, after_seconds: float) -> None:
        self._end(claim, last_error=error, due_at=now() + after_seconds)

    def fail(self, claim: ClaimedDelivery, error: str) -> None:
        self._end(claim, status="failed", last_error=error)

    def disable(self, endpoint_id: str, reason: str) -> None:
        """The endpoint stays, but wants no events any more; what waits for it is given up."""
        self.session.execute(update(WebhookEndpoint).where(WebhookEndpoint.id == endpoint_id).values(events=[]))
        self._give_up_on(endpoint_id, reason)

    # How

    def _delivery(self, endpoint_id: str, delivery_id: str) -> WebhookDelivery:
        delivery = self.session.get(WebhookDelivery, delivery_id)
        if delivery is None or delivery.endpoint_id != endpoint_id:
            raise NotFound("This webhook has no such delivery.", param="after")
        return delivery

    def _active(self) -> Sequence[WebhookEndpoint]:
        return self.session.scalars(select(WebhookEndpoint).where(WebhookEndpoint.deleted_at.is_(None))).all()

    def _undelivered_to(self, endpoint: WebhookEndpoint, since: float) -> Iterator[WebhookDelivery]:
        if not endpoint.events:  # disabled
            return
        for event_id, job, happened_at in self.session.execute(_events_unknown_to(endpoint, since)).tuples():
            event_type = event_type_of(job.kind, job.status, job.error_code)
            if event_type is not None and event_type in endpoint.events:
                yield WebhookDelivery(
                    id=new_id("delivery-"),
                    endpoint_id=endpoint.id,
                    event_id=event_id,
                    event_type=event_type,
                    payload=event_payload(event_id, event_type, job.id, happened_at),
                    due_at=happened_at,
                )

    def _claim(self, delivery: WebhookDelivery, lease_seconds: float) -> bool:
        claimed = (
            WebhookDelivery.id == delivery.id,
            WebhookDelivery.num_attempts == delivery.num_attempts,
            *_is_due(),
        )
        leased = {"num_attempts": delivery.num_attempts + 1, "due_at": now() + lease_seconds}
        return self._update(*claimed, **leased) > 0

    def _end(self, claim: ClaimedDelivery, **values: Any) -> None:
        held = (WebhookDelivery.id == claim.id, WebhookDelivery.num_attempts == claim.num_attempts)
        self._update(*held, WebhookDelivery.status == "pending", **values)

    def _give_up_on(self, endpoint_id: str, reason: str) -> None:
        waiting = (WebhookDelivery.endpoint_id == endpoint_id, WebhookDelivery.status == "pending")
        self._update(*waiting, status="failed", last_error=reason)

    def _update(self, *where: ColumnElement[bool], **values: Any) -> int:
        changed = self.session.execute(
            update(WebhookDelivery).where(*where).values(**values), execution_options={"synchronize_session": False}
        )
        return cast(CursorResult[Any], changed).rowcount


def _is_due() -> tuple[ColumnElement[bool], ...]:
    return WebhookDelivery.status == "pending", WebhookDelivery.due_at <= now()


def _events_unknown_to(endpoint: WebhookEndpoint, since: float) -> Select[tuple[str, Job, float]]:
    """The ends of jobs since then, and since the endpoint was created, of which it has no delivery."""
    is_known = (
        select(WebhookDelivery.id)
        .where(WebhookDelivery.endpoint_id == endpoint.id, WebhookDelivery.event_id == _EVENT_ID)
        .exists()
    )
    return (
        select(_EVENT_ID, Job, JobEvent.created_at)
        .join(JobEvent, JobEvent.job_id == Job.id)
        .where(
            Job.project_id == endpoint.project_id,
            Job.kind.in_(JOB_KINDS),
            Job.status.in_(ENDED),
            Job.finished_at >= max(since, endpoint.created_at),
            Job.finished_at >= now() - _HORIZON_SECONDS,
            JobEvent.type == "status",
            JobEvent.data["to"].as_string() == Job.status,
            ~is_known,
        )
        .order_by(JobEvent.id)
    )


def _claimed(delivery: WebhookDelivery, endpoint: WebhookEndpoint) -> ClaimedDelivery:
    return ClaimedDelivery(
        id=delivery.id,
        endpoint_id=endpoint.id,
        url=endpoint.url,
        secret=endpoint.secret,
        event_id=delivery.event_id,
        payload=delivery.payload,
        num_attempts=delivery.num_attempts + 1,
    )
