"""The character 0, which Postgres refuses: taken out of what is kept, refused in what is looked for."""

from __future__ import annotations

import json
from contextlib import nullcontext

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from shared.database import Database
from shared.errors import FinetunedError, InvalidRequest
from shared.models import Document, Job, JobEvent
from shared.repositories.jobs import JobRepository
from shared.storable import storable_json

_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(_VALUES)
def test_json_loses_the_character_0_and_nothing_else(value: object) -> None:
    kept = json.loads(storable_json(value))
    written = json.dumps(value)
    assert "\0" not in str(kept)
    assert kept == value or "\\u0000" in written


def test_a_backslash_before_u0000_is_no_character_0() -> None:
    value = {"a\\u0000": ["\\\\u0000", "x\0\\u0000"]}
    assert json.loads(storable_json(value)) == {"a\\u0000": ["\\\\u0000", "x\\u0000"]}


def test_a_job_that_holds_the_character_0_is_kept_read_and_looked_into(database: Database) -> None:
    with database.write() as session:
        jobs = JobRepository(session)
        jobs.create("default", "setup", {"metadata": {"team\0": "do\0cs"}})
        held = jobs.claim_next("setup", "me", 60.0)
    assert held is not None
    with database.write() as session:
        jobs = JobRepository(session)
        jobs.add_event(held, type="message", level="warn", message="row\0 1" + "x" * 3000, data={"line": "a\0b"})
        jobs.fail(held, FinetunedError("ca\0nnot" + "x" * 3000), {"text": "\0"})
    with database.read() as session:
        job = session.scalars(select(Job).where(Job.parameters["metadata"]["team"].as_string() == "docs")).one()
        event = session.scalars(select(JobEvent).where(JobEvent.data["line"].as_string() == "ab")).one()
    assert (job.error_detail or "").startswith("cannotxxx")
    assert (len(job.error_detail or ""), len(event.message)) == (1950, 2000)
    assert event.message.startswith("row 1xxx")
    assert job.result == {"text": ""}


def test_looking_for_the_character_0_is_no_fault_of_the_service(database: Database) -> None:
    is_refused = database.engine.dialect.name == "postgresql"
    with pytest.raises(InvalidRequest, match="U\\+0000") if is_refused else nullcontext(), database.read() as session:
        assert session.scalars(select(Document).where(Document.id == "a\0b")).all() == []
