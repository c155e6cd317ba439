"""`finetuned keys`, and the key that the command sends."""

from __future__ import annotations

import json

from typer.testing import CliRunner, Result

from cli.main import app
from tests.cli.conftest import Run
from tests.cli.test_commands import assert_failed, assert_fits


def with_key(url: str, secret: str, *words: str) -> Result:
    return CliRunner().invoke(app, list(words), env={"FINETUNED_URL": url, "FINETUNED_API_KEY": secret})


def test_keys_are_created_used_listed_and_revoked(finetuned: Run, service_url: str) -> None:
    created = finetuned("keys", "create", "--name", "first", "--scope", "admin")
    assert created.exit_code == 0, created.output
    secret = created.stdout.strip()
    assert "shown only now" in created.stderr
    assert_failed(finetuned("keys", "list"), "This service needs an API key; send it as `Authorization: Bearer …`.")
    made = with_key(
        service_url, secret, "keys", "create", "--name", "r", "--scope", "read", "--max-queued-jobs", "3", "--json"
    )
    reader = json.loads(made.stdout)
    assert (reader["scopes"], reader["max_queued_jobs"]) == (["read"], 3)
    listed = with_key(service_url, secret, "keys", "list")
    assert "first" in listed.stdout
    assert reader["id"] in listed.stdout
    assert secret not in listed.output
    assert_fits(listed.stdout)
    assert with_key(service_url, reader["secret"], "jobs").exit_code == 0
    revoked = with_key(service_url, secret, "keys", "revoke", reader["id"])
    assert revoked.stdout == f"{reader['id']} is revoked.\n"
    assert_failed(
        with_key(service_url, reader["secret"], "jobs"),
        "Incorrect API key provided: it is not known here, or was revoked.",
    )
    shown = json.loads(with_key(service_url, secret, "keys", "list", "--json").stdout)
    states = {one["id"]: one["revoked_at"] for one in shown}
    assert states[reader["id"]] is not None


def test_what_a_key_may_not_do_is_one_sentence(finetuned: Run, service_url: str) -> None:
    assert_failed(
        finetuned("keys", "create", "--name", "r", "--scope", "read"),
        "The first key must have the scope admin: without one, nobody could make others.",
    )
    secret = finetuned("keys", "create", "--name", "a", "--scope", "admin").stdout.strip()
    reader = with_key(service_url, secret, "keys", "create", "--name", "r", "--scope", "read").stdout.strip()
    assert_failed(
        with_key(service_url, reader, "keys", "list"), "This API key has not the scope admin; use one that has."
    )


def test_an_unusable_key_is_named_and_never_shown(service_url: str) -> None:
    result = with_key(service_url, "ft-ü\x07", "jobs")
    assert_failed(result, "FINETUNED_API_KEY is no API key; `finetuned keys create` shows one.")


def test_an_empty_key_is_none(service_url: str) -> None:
    assert with_key(service_url, "", "jobs").exit_code == 0
