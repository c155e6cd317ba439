"""Webhooks: a real receiver is told of the end of jobs, and OpenAI's client accepts what it is sent."""

from __future__ import annotations

import asyncio
import datetime
import json
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from fastapi.testclient import TestClient
from openai.types import webhooks as types

from api.main import create_app
from api.webhooks.addresses import checked_url, is_public
from api.webhooks.posting import Outcome, post_event, webhook_client
from api.webhooks.sender import MOST_ATTEMPTS, pause_seconds
from api.webhooks.signing import new_secret
from shared.database import Database
from shared.errors import BatchExpired, InvalidRequest, SetupFailed
from shared.models import WebhookDelivery
from shared.repositories.jobs import JobRepository
from shared.repositories.webhooks import ClaimedDelivery, WebhookRepository
from shared.settings import Settings
from shared.webhook_events import EVENT_TYPES
from tests.api.conftest import claim
from tests.api.webhook_receiver import Receiver
from tests.databases import migrate
from tests.waiting import until

Start = Callable[..., TestClient]


@pytest.fixture
def start(settings: Settings) -> Iterator[Start]:
    """Starts an API process of its own, which may send to this machine unless the test says otherwise."""
    migrate(settings.resolved_database_url)
    with ExitStack() as processes:

        def begin(*, allow_private: bool = True) -> TestClient:
            changed = settings.model_copy(update={"webhook_allow_private": allow_private})
            return processes.enter_context(TestClient(create_app(changed), base_url="http://localhost"))

        yield begin


def _create(client: TestClient, url: str, **more: object) -> dict[str, Any]:
    answer = client.post("/webhooks", json={"url": url, **more})
    assert answer.status_code == 201, answer.text
    return dict(answer.json())


def _end_job(database: Database, kind: str, how: str = "succeeded", project: str = "default") -> str:
    """A job of the kind that has ended so; its id."""
    with database.write() as session:
        job_id = JobRepository(session).create(project, kind, {}).id
    if how == "cancelled":
        with database.write() as session:
            JobRepository(session).cancel(project, job_id)
        return job_id
    claimed = claim(database, kind)
    with database.write() as session:
        jobs = JobRepository(session)
        failures = {"failed": SetupFailed(), "expired": BatchExpired()}
        jobs.fail(claimed, failures[how]) if how in failures else jobs.succeed(claimed, {})
    return job_id


def _delivery(client: TestClient, webhook_id: str) -> dict[str, Any]:
    [one] = client.get(f"/webhooks/{webhook_id}/deliveries").json()["data"]
    return dict(one)


def _wait_for_delivery(client: TestClient, webhook_id: str, is_wanted: Callable[[dict[str, Any]], bool]) -> Any:
    def is_there() -> bool:
        found = client.get(f"/webhooks/{webhook_id}/deliveries").json()["data"]
        return bool(found) and is_wanted(found[0])

    until(is_there, 10.0)
    return _delivery(client, webhook_id)


def _make_due(database: Database, **values: object) -> None:
    """As if the pause before the next attempt were over."""
    with database.write() as session:
        session.query(WebhookDelivery).update({"due_at": 0.0, **values})


# Endpoints


def test_a_webhook_is_created_listed_and_deleted_and_its_secret_shown_once(start: Start) -> None:
    client = start()
    created = _create(client, "https://receiver.example/hook")
    assert created["secret"].startswith("whsec_")
    assert (created["events"], created["enabled"]) == (list(EVENT_TYPES), True)
    shown = {name: value for name, value in created.items() if name != "secret"}
    assert client.get(f"/webhooks/{created['id']}").json() == shown
    assert client.get("/webhooks").json()["data"] == [shown]
    assert client.get(f"/webhooks/{created['id']}/deliveries").json()["data"] == []
    gone = client.delete(f"/webhooks/{created['id']}").json()
    assert gone == {"object": "webhook_endpoint.deleted", "id": created["id"], "deleted": True}
    assert client.get("/webhooks").json()["data"] == []
    for method in ("GET", "DELETE"):
        assert client.request(method, f"/webhooks/{created['id']}").status_code == 404


def test_webhooks_are_listed_in_pages(start: Start) -> None:
    client = start()
    ids = [_create(client, f"https://receiver.example/{number}")["id"] for number in range(3)]
    first = client.get("/webhooks", params={"limit": 2}).json()
    second = client.get("/webhooks", params={"limit": 2, "after": first["last_id"]}).json()
    assert (first["has_more"], second["has_more"]) == (True, False)
    assert [one["id"] for one in first["data"] + second["data"]] == ids[::-1]
    assert client.get("/webhooks", params={"after": "nobody"}).status_code == 404


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1/",
        "http://127.1:8000/",
        "http://2130706433/",
        "http://0x7f000001/",
        "http://localhost/",
        "http://api.localhost./",
        "http://[::1]/",
        "http://[::ffff:10.0.0.1]/",
        "http://10.1.2.3/",
        "http://169.254.169.254/latest/meta-data",
        "http://0.0.0.0/",
        "ftp://receiver.example/",
        "file:///etc/passwd",
        "https://user:hunter2@receiver.example/",
        "https://user@receiver.example/",
        "https://",
        "receiver.example",
        "https://receiver.example:99999/",
        "https://receiver.example/\x00",
        "https://receiver.example/" + "ä" * 1900,
        "\ud800",
    ],
)
def test_a_url_that_must_not_be_called_is_refused(url: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        checked_url(url, allow_private=False)
    assert caught.value.param == "url"
    assert "hunter2" not in caught.value.detail


@pytest.mark.parametrize(
    "url", ["https://8.8.8.8/hook", "http://receiver.example:8080/a?b=c", "https://münchen.example"]
)
def test_a_url_of_the_internet_is_taken(url: str) -> None:
    assert checked_url(url, allow_private=False)


def test_a_bad_webhook_is_a_client_s_error(start: Start) -> None:
    client = start(allow_private=False)
    for body in (
        {"url": "http://127.0.0.1/"},
        {"url": ""},
        {"url": "\ud800"},
        {"url": "https://receiver.example/\x00"},
        {"url": "https://receiver.example/", "events": ["response.completed"]},
        {"url": "https://receiver.example/", "events": []},
        {"url": "https://receiver.example/", "secret": "mine"},
    ):
        answer = client.post("/webhooks", content=json.dumps(body), headers={"content-type": "application/json"})
        assert (answer.status_code, answer.json()["error"]) == (422, "invalid_request"), body
    assert client.get("/webhooks").json()["data"] == []


# What is sent


def test_the_end_of_every_job_is_sent_as_openai_s_client_expects_it(start: Start, rows: Database) -> None:
    expected = {
        ("training", "succeeded"): types.FineTuningJobSucceededWebhookEvent,
        ("training", "failed"): types.FineTuningJobFailedWebhookEvent,
        ("training", "cancelled"): types.FineTuningJobCancelledWebhookEvent,
        ("batch", "succeeded"): types.BatchCompletedWebhookEvent,
        ("batch", "failed"): types.BatchFailedWebhookEvent,
        ("batch", "cancelled"): types.BatchCancelledWebhookEvent,
        ("batch", "expired"): types.BatchExpiredWebhookEvent,
    }
    with Receiver() as receiver:
        webhook = _create(start(), receiver.url)
        ids = {_end_job(rows, *ending): kind for ending, kind in expected.items()}
        received = receiver.wait_for(len(expected))
        events = {event.data.id: event for event in (one.unwrap(webhook["secret"]) for one in received)}
    assert {job_id: type(event) for job_id, event in events.items()} == ids
    for one, event in zip(received, events.values(), strict=True):
        assert (one.path, one.headers["webhook-id"]) == ("/hook?for=tests", event.id)
        assert one.headers["content-type"] == "application/json"
        with pytest.raises(openai.InvalidWebhookSignatureError):
            one.unwrap(new_secret())


def test_only_wanted_events_since_the_webhook_was_created_are_sent(start: Start, rows: Database) -> None:
    with Receiver() as receiver:
        client = start()
        _end_job(rows, "training")
        webhook = _create(client, receiver.url, events=["fine_tuning.job.succeeded"])
        _end_job(rows, "batch")
        _end_job(rows, "setup")
        _end_job(rows, "training", "failed")
        _end_job(rows, "training", project="another")
        wanted = _end_job(rows, "training")
        delivery = _wait_for_delivery(client, webhook["id"], lambda one: one["status"] == "delivered")
        received = list(receiver.received)
    assert (delivery["job_id"], delivery["event_type"]) == (wanted, "fine_tuning.job.succeeded")
    assert (delivery["num_attempts"], delivery["last_error"], delivery["next_attempt_at"]) == (1, None, None)
    assert [one.unwrap(webhook["secret"]).id for one in received] == [delivery["event_id"]]


def test_a_deleted_webhook_is_sent_nothing_more(start: Start, rows: Database) -> None:
    with Receiver([500]) as receiver:
        client = start()
        webhook = _create(client, receiver.url)
        other = _create(client, receiver.url, events=["batch.completed"])
        _end_job(rows, "training")
        _wait_for_delivery(client, webhook["id"], lambda one: one["last_error"] is not None)
        client.delete(f"/webhooks/{webhook['id']}")
        with rows.read() as session:
            assert session.query(WebhookDelivery).one().status == "failed"
        _make_due(rows)
        _end_job(rows, "training")
        _end_job(rows, "batch")
        _wait_for_delivery(client, other["id"], lambda one: one["last_error"] is not None)
        assert len(receiver.received) == 2


def test_several_api_processes_send_each_event_once(start: Start, rows: Database) -> None:
    with Receiver() as receiver:
        clients = [start(), start()]
        webhook = _create(clients[0], receiver.url)
        ids = {_end_job(rows, "training") for _ in range(8)}
        received = receiver.wait_for(8)
        deliveries = clients[0].get(f"/webhooks/{webhook['id']}/deliveries").json()["data"]
    assert {one["num_attempts"] for one in deliveries} == {1}
    assert sorted(one.headers["webhook-id"].split("_")[1] for one in received) == sorted(ids)


# When it fails


def test_a_receiver_that_fails_is_tried_again_with_the_same_event(start: Start, rows: Database) -> None:
    with Receiver([503, 200]) as receiver:
        client = start()
        webhook = _create(client, receiver.url)
        _end_job(rows, "batch")
        waiting = _wait_for_delivery(client, webhook["id"], lambda one: one["last_error"] is not None)
        assert (waiting["status"], waiting["last_error"]) == ("pending", "The receiver answered 503.")
        assert waiting["next_attempt_at"] > waiting["created_at"]
        _make_due(rows)
        delivered = _wait_for_delivery(client, webhook["id"], lambda one: one["status"] == "delivered")
    assert (delivered["num_attempts"], delivered["last_error"]) == (2, None)
    first, second = (one.unwrap(webhook["secret"]) for one in receiver.received)
    assert first == second


def test_after_the_last_attempt_a_delivery_has_failed(start: Start, rows: Database) -> None:
    with Receiver([500]) as receiver:
        client = start()
        webhook = _create(client, receiver.url)
        _end_job(rows, "batch")
        _wait_for_delivery(client, webhook["id"], lambda one: one["last_error"] is not None)
        _make_due(rows, num_attempts=MOST_ATTEMPTS - 1)
        failed = _wait_for_delivery(client, webhook["id"], lambda one: one["status"] == "failed")
    assert (failed["num_attempts"], failed["next_attempt_at"]) == (MOST_ATTEMPTS, None)


def test_pauses_grow_from_seconds_to_an_hour() -> None:
    pauses = [pause_seconds(number) for number in range(1, MOST_ATTEMPTS)]
    assert 4.0 <= pauses[0] <= 6.0
    assert 2880.0 <= pauses[-1] <= 4320.0
    assert pauses == sorted(pauses)
    assert pause_seconds(3) != pause_seconds(3)


def test_a_receiver_that_is_gone_disables_its_webhook(start: Start, rows: Database) -> None:
    with Receiver([410]) as receiver:
        client = start()
        webhook = _create(client, receiver.url)
        _end_job(rows, "batch")
        failed = _wait_for_delivery(client, webhook["id"], lambda one: one["status"] == "failed")
        assert failed["last_error"] == "The receiver answered 410."
        shown = client.get(f"/webhooks/{webhook['id']}").json()
        assert (shown["enabled"], shown["events"]) == (False, [])


def test_a_restart_sends_what_is_due(settings: Settings, rows: Database) -> None:
    allowed = settings.model_copy(update={"webhook_allow_private": True})
    migrate(settings.resolved_database_url)
    with Receiver([500]) as receiver, TestClient(create_app(allowed), base_url="http://localhost") as client:
        webhook = _create(client, receiver.url)
        before = _end_job(rows, "training")
        _wait_for_delivery(client, webhook["id"], lambda one: one["last_error"] is not None)
    while_away = _end_job(rows, "batch")
    _make_due(rows)
    with Receiver(port=receiver.port) as reborn, TestClient(create_app(allowed), base_url="http://localhost"):
        received = reborn.wait_for(2)
    assert {one.unwrap(webhook["secret"]).data.id for one in received} == {before, while_away}


def test_the_api_lives_before_the_database_is_migrated_and_sends_afterwards(settings: Settings) -> None:
    allowed = settings.model_copy(update={"webhook_allow_private": True})
    with Receiver() as receiver, TestClient(create_app(allowed), base_url="http://localhost") as client:
        assert client.get("/health/live").status_code == 200
        migrate(settings.resolved_database_url)
        _create(client, receiver.url)
        database = Database(settings.resolved_database_url)
        _end_job(database, "training")
        receiver.wait_for(1)
        database.close()


def test_a_name_that_leads_to_a_private_address_is_not_called(start: Start, rows: Database) -> None:
    with Receiver() as receiver:
        client = start(allow_private=False)
        with rows.write() as session:  # as if the name had led elsewhere when the webhook was created
            url = f"http://localhost:{receiver.port}/"
            webhook = WebhookRepository(session).create("default", url, new_secret(), EVENT_TYPES)
        _end_job(rows, "batch")
        waiting = _wait_for_delivery(client, webhook.id, lambda one: one["last_error"] is not None)
        assert "private addresses" in waiting["last_error"]
        assert receiver.received == []


# One attempt


def _post(
    url: str,
    *addresses: str,
    allow_private: bool = True,
    verify: ssl.SSLContext | None = None,
    timeout_seconds: float = 10.0,
) -> Outcome:
    """One attempt where the URL's host leads to these addresses."""

    async def resolve(host: str) -> list[str]:
        return list(addresses)

    async def post() -> Outcome:
        async with httpx.AsyncClient(verify=verify) if verify else webhook_client() as client:
            delivery = ClaimedDelivery("delivery-1", "webhook-1", url, new_secret(), "evt_1", {"id": "evt_1"}, 1)
            return await post_event(
                client, delivery, allow_private=allow_private, resolve=resolve, timeout_seconds=timeout_seconds
            )

    return asyncio.run(post())


def test_the_checked_address_is_called_under_the_url_s_name() -> None:
    with Receiver() as receiver:
        assert _post(f"http://receiver.example:{receiver.port}/hook", "127.0.0.1") == Outcome()
    assert receiver.received[0].headers["host"] == f"receiver.example:{receiver.port}"


def test_one_private_address_among_public_ones_is_refused() -> None:
    outcome = _post("http://receiver.example/", "8.8.8.8", "10.0.0.1", allow_private=False)
    assert "private addresses" in str(outcome.error)


def test_the_next_address_is_tried_if_one_does_not_listen() -> None:
    with Receiver() as receiver:
        assert _post(f"http://receiver.example:{receiver.port}/", "127.0.0.2", "127.0.0.1") == Outcome()
    assert len(receiver.received) == 1


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_redirect_is_a_failure_and_not_followed(status: int) -> None:
    with Receiver([status]) as receiver:
        assert _post(receiver.url, "127.0.0.1") == Outcome(f"The receiver answered {status}.")
    assert len(receiver.received) == 1


def test_a_receiver_that_talks_too_much_is_not_listened_to() -> None:
    with Receiver([200], body=b"x" * 50_000_000) as receiver:
        receiver.server.handle_error = lambda *_: None  # type: ignore[method-assign] # it notices that we hang up
        assert _post(receiver.url, "127.0.0.1") == Outcome()


def test_a_receiver_that_is_away_is_a_failure() -> None:
    with Receiver() as receiver:
        url = receiver.url
    assert _post(url, "127.0.0.1").error == "The receiver could not be reached: ConnectError."


def test_a_receiver_that_does_not_answer_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        outcome = _post(f"http://127.0.0.1:{silent.getsockname()[1]}/", "127.0.0.1", timeout_seconds=0.1)
    assert outcome == Outcome("The receiver did not answer within 0.1 seconds.")


def _certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A certificate of its own for a name, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    today = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
        .not_valid_before(today - datetime.timedelta(days=1))
        .not_valid_after(today + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    unencrypted = serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, unencrypted))
    (folder / "certificate.pem").write_bytes(certificate.public_bytes(pem))
    return folder / "certificate.pem", folder / "key.pem"


def test_the_certificate_must_be_that_of_the_url_s_name(tmp_path: Path) -> None:
    certificate, key = _certificate(tmp_path, "receiver.example")
    serving = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    serving.load_cert_chain(certificate, key)
    trusting = ssl.create_default_context(cafile=str(certificate))
    with Receiver() as receiver:
        receiver.server.socket = serving.wrap_socket(receiver.server.socket, server_side=True)
        receiver.server.handle_error = lambda *_: None  # type: ignore[method-assign] # it notices that we hang up
        right = _post(f"https://receiver.example:{receiver.port}/", "127.0.0.1", verify=trusting)
        wrong = _post(f"https://other.example:{receiver.port}/", "127.0.0.1", verify=trusting)
    assert right == Outcome()
    assert wrong == Outcome("The receiver could not be reached: ConnectError.")
    assert len(receiver.received) == 1


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"])
def test_the_internet_s_addresses_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "address",
    [
        "0.0.0.0",  # noqa: S104
        "10.0.0.1",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "172.16.0.1",
        "192.168.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "239.1.1.1",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::127.0.0.1",
        "::ffff:127.0.0.1",
        "64:ff9b::7f00:1",
        "64:ff9b:1::1",
        "2001:db8::1",
        "2002:7f00:1::",
        "fc00::1",
        "fe80::1",
        "fe80::1%eth0",
        "fec0::1",
        "ff02::1",
    ],
)
def test_all_other_addresses_are_not(address: str) -> None:
    assert not is_public(address)


# On both databases


def test_a_delivery_is_claimed_by_one_and_freed_by_the_end_of_its_lease(database: Database) -> None:
    with database.write() as session:
        WebhookRepository(session).create("default", "https://receiver.example/", new_secret(), EVENT_TYPES)
    job_id = _end_job(database, "training", "failed")
    with database.write() as session:
        WebhookRepository(session).add_undelivered(0.0)
    with database.read() as session:
        assert WebhookRepository(session).undelivered(0.0) == []
    with database.write() as session:
        [first] = WebhookRepository(session).claim_due(5, 0.0)
        assert WebhookRepository(session).claim_due(0, 60.0) == []
    with database.write() as session:
        [second] = WebhookRepository(session).claim_due(5, 60.0)
        assert WebhookRepository(session).claim_due(5, 60.0) == []
    assert (first.num_attempts, second.num_attempts, first.id) == (1, 2, second.id)
    assert second.payload["data"] == {"id": job_id}
    with database.write() as session:
        WebhookRepository(session).fail(first, "too late")
        WebhookRepository(session).succeed(second)
    with database.read() as session:
        delivery = session.get_one(WebhookDelivery, second.id)
        assert (delivery.status, delivery.last_error) == ("delivered", None)
