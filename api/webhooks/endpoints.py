"""`/webhooks`: create, list, read, delete, and what was sent."""

from __future__ import annotations

from fastapi import APIRouter

from api.dependencies import AppServices, Id, Project, ReadSession, WriteSession
from api.pagination import Listing, Paging, listing
from api.webhooks.addresses import checked_url
from api.webhooks.schemas import (
    CreatedWebhook,
    DeletedWebhook,
    DeliveryAnswer,
    WebhookAnswer,
    WebhookRequest,
    delivery_answer,
    webhook_answer,
)
from api.webhooks.signing import new_secret
from shared.repositories.webhooks import WebhookRepository

router = APIRouter(prefix="/webhooks", tags=["webhooks"])


@router.post("", status_code=201)
def create_webhook(
    request: WebhookRequest, session: WriteSession, services: AppServices, project: Project
) -> CreatedWebhook:
    """Sends the events that happen from now on to a URL, signed as Standard Webhooks with the secret in the answer."""
    url = checked_url(request.url, allow_private=services.settings.webhook_allow_private)
    endpoint = WebhookRepository(session).create(project, url, new_secret(), list(dict.fromkeys(request.events)))
    return CreatedWebhook(**webhook_answer(endpoint).model_dump(), secret=endpoint.secret)


@router.get("")
def list_webhooks(page: Paging, session: ReadSession, project: Project) -> Listing[WebhookAnswer]:
    """Webhooks, newest first."""
    rows = WebhookRepository(session).page(project, after=page.after, limit=page.limit)
    return listing(rows, page.limit, webhook_answer, lambda endpoint: endpoint.id)


@router.get("/{webhook_id}")
def get_webhook(webhook_id: Id, session: ReadSession, project: Project) -> WebhookAnswer:
    """One webhook."""
    return webhook_answer(WebhookRepository(session).get(project, webhook_id))


@router.delete("/{webhook_id}")
def delete_webhook(webhook_id: Id, session: WriteSession, project: Project) -> DeletedWebhook:
    """Sends nothing there any more, what waits included."""
    WebhookRepository(session).delete(project, webhook_id)
    return DeletedWebhook(id=webhook_id)


@router.get("/{webhook_id}/deliveries")
def list_deliveries(webhook_id: Id, page: Paging, session: ReadSession, project: Project) -> Listing[DeliveryAnswer]:
    """The events that were, or are to be, sent to a webhook, newest first."""
    rows = WebhookRepository(session).deliveries(project, webhook_id, after=page.after, limit=page.limit)
    return listing(rows, page.limit, delivery_answer, lambda delivery: delivery.id)
