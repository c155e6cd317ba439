"""Webhooks as clients see them."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from api.webhooks.addresses import LONGEST_URL
from shared.models import WebhookDelivery, WebhookEndpoint
from shared.webhook_events import EVENT_TYPES, EventType


class WebhookRequest(BaseModel):
    """Where events are to be sent, and which."""

    model_config = ConfigDict(extra="forbid")

    url: str = Field(min_length=1, max_length=LONGEST_URL, description="http(s), without a user or a password.")
    events: tuple[EventType, ...] = Field(EVENT_TYPES, min_length=1, description="The types that are wanted.")


class WebhookAnswer(BaseModel):
    """A webhook. One whose receiver has said 410 is not `enabled` any more; delete it, or create it anew."""

    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    id: str
    url: str
    events: list[EventType]
    enabled: bool
    created_at: int


class CreatedWebhook(WebhookAnswer):
    """A new webhook, with the secret that signs its events: it is shown this once."""

    secret: str


class DeletedWebhook(BaseModel):
    """A webhook to which nothing is sent any more."""

    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    id: str
    deleted: Literal[True] = True


class DeliveryAnswer(BaseModel):
    """One event for one webhook, and how its sending went."""

    object: Literal["webhook_endpoint.delivery"] = "webhook_endpoint.delivery"
    id: str
    event_id: str
    event_type: EventType
    job_id: str
    status: Literal["pending", "delivered", "failed"]
    num_attempts: int
    last_error: str | None
    next_attempt_at: int | None
    created_at: int


def webhook_answer(endpoint: WebhookEndpoint) -> WebhookAnswer:
    return WebhookAnswer(
        id=endpoint.id,
        url=endpoint.url,
        events=endpoint.events,
        enabled=bool(endpoint.events),
        created_at=int(endpoint.created_at),
    )


def delivery_answer(delivery: WebhookDelivery) -> DeliveryAnswer:
    is_pending = delivery.status == "pending"
    return DeliveryAnswer.model_validate(
        {
            "id": delivery.id,
            "event_id": delivery.event_id,
            "event_type": delivery.event_type,
            "job_id": delivery.payload["data"]["id"],
            "status": delivery.status,
            "num_attempts": delivery.num_attempts,
            "last_error": delivery.last_error,
            "next_attempt_at": int(delivery.due_at) if is_pending else None,
            "created_at": int(delivery.created_at),
        }
    )
