"""Sending one event to one endpoint: to a checked address, signed, within bounds."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from importlib.metadata import version

import httpx

from api.webhooks.addresses import AddressRefused, Resolve, addresses_of, host_of, resolve
from api.webhooks.signing import signed_headers
from shared.repositories.webhooks import ClaimedDelivery
from shared.tls import trusted_authorities

POST_SECONDS = 10.0
_MOST_READ_BYTES = 64 * 1024


@dataclass(frozen=True)
class Outcome:
    """How an attempt went; `error` is None if the receiver took the event."""

    error: str | None = None
    is_gone: bool = False


def webhook_client() -> httpx.AsyncClient:
    """A client to send with. It uses no proxy of the environment, which would resolve names anew, and keeps no
    connection: one whose certificate was checked for another name at the same address is not good."""
    return httpx.AsyncClient(
        timeout=POST_SECONDS,
        trust_env=False,
        follow_redirects=False,
        verify=trusted_authorities(),
        limits=httpx.Limits(max_keepalive_connections=0),
    )


async def post_event(
    client: httpx.AsyncClient,
    delivery: ClaimedDelivery,
    *,
    allow_private: bool,
    resolve: Resolve = resolve,
    timeout_seconds: float = POST_SECONDS,
) -> Outcome:
    """One attempt; what goes wrong is in the outcome."""
    url = httpx.URL(delivery.url)
    try:
        async with asyncio.timeout(timeout_seconds):
            addresses = await addresses_of(url, resolve, allow_private=allow_private)
            status = await _post_to_first(client, delivery, url, addresses)
    except TimeoutError:
        return Outcome(f"The receiver did not answer within {timeout_seconds:g} seconds.")
    except AddressRefused as error:
        return Outcome(str(error))
    except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
        return Outcome(f"The receiver could not be reached: {type(error).__name__}.")
    if 200 <= status < 300:
        return Outcome()
    return Outcome(f"The receiver answered {status}.", is_gone=status == HTTPStatus.GONE)


async def _post_to_first(
    client: httpx.AsyncClient, delivery: ClaimedDelivery, url: httpx.URL, addresses: Sequence[str]
) -> int:
    """The status that the first address answers which takes the connection."""
    *others, last = addresses
    for address in others:
        with suppress(httpx.ConnectError, httpx.ConnectTimeout):  # nothing was sent yet
            return await _post_to(client, delivery, url, address)
    return await _post_to(client, delivery, url, last)


async def _post_to(client: httpx.AsyncClient, delivery: ClaimedDelivery, url: httpx.URL, address: str) -> int:
    body = json.dumps(delivery.payload, separators=(",", ":")).encode()
    headers = {
        **signed_headers(delivery.secret, delivery.event_id, int(time.time()), body),
        "host": url.netloc.decode(),
        "content-type": "application/json",
        "user-agent": f"finetuned/{version('finetuned')}",
    }
    request = client.build_request(
        "POST",
        url.copy_with(host=address),
        content=body,
        headers=headers,
        extensions={"sni_hostname": host_of(url)},  # the certificate must be the name's, not the address's
    )
    response = await client.send(request, stream=True)
    try:
        await _read_some(response)
    finally:
        await response.aclose()
    return response.status_code


async def _read_some(response: httpx.Response) -> None:
    """A receiver may find it rude if nobody listens; but it may not talk for ever."""
    num_bytes = 0
    async for piece in response.aiter_raw():
        num_bytes += len(piece)
        if num_bytes >= _MOST_READ_BYTES:
            return
