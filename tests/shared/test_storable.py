"""What a database refuses is taken out of what is kept, and not looked for."""

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

NAN, INFINITE = float("nan"), float("inf")
_TEXTS = st.text(st.characters(exclude_categories=[]), max_size=5)  # with half characters
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | _TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_TEXTS, inner, max_size=3),
    max_leaves=8,
)


@given(_VALUES)
def test_json_loses_what_cannot_be_kept_and_nothing_else(value: object) -> None:
    kept = json.dumps(json.loads(storable_json(value)), ensure_ascii=False)
    written = json.dumps(value, ensure_ascii=False)
    kept.encode()
    assert "\\u0000" not in kept.replace("\\\\", "")
    assert kept == written or "\\u0000" in written or any("\ud800" <= one <= "\udfff" for one in written)


def test_numbers_that_json_does_not_know_become_null_at_any_depth() -> None:
    values = {"a": NAN, "b": {"c": [1.5, -INFINITE, {"d": NAN}]}, "e": (INFINITE, 2), "f": "nan", "g": True, "h": None}
    assert json.loads(storable_json(values)) == {
        "a": None, "b": {"c": [1.5, None, {"d": None}]}, "e": [None, 2], "f": "nan", "g": True, "h": None,
    }  # fmt: skip


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
        jobs.add_event(
            held,
            type="message",
            level="warn",
            message="row\0 \udcff1" + "x" * 3000,
            data={"line": "a\0b", "path": "\udcff"},
        )
        jobs.fail(held, FinetunedError("ca\0nnot" + "x" * 3000), {"text": "\0", "loss": NAN})
    with database.read() as session:
        job = session.scalars(select(Job).where(Job.parameters["metadata"]["team"].as_string() == "docs")).one()
        event = session.scalars(select(JobEvent).where(JobEvent.data["line"].as_string() == "ab")).one()
    assert (job.error_detail or "").startswith("cannotxxx")
    assert (len(job.error_detail or ""), len(event.message)) == (1950, 2000)
    assert event.message.startswith("row ?1xxx")
    assert job.result == {"text": "", "loss": None}


def test_looking_for_the_character_0_is_no_fault_of_the_service(database: Database) -> None:
    is_refused = database.engine.dialect.name == "postgresql"
    with pytest.raises(InvalidRequest, match="U\\+0000") if is_refused else nullcontext(), database.read() as session:
        assert session.scalars(select(Document).where(Document.id == "a\0b")).all() == []
