"""Log lines name what the process works on, for people and for programs."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from typing import Any

import pytest

from shared.logs import JsonFormatter, TextFormatter, log_about


@pytest.fixture
def written() -> io.StringIO:
    return io.StringIO()


def logger(written: io.StringIO, formatter: logging.Formatter) -> logging.Logger:
    handler = logging.StreamHandler(written)
    handler.setFormatter(formatter)
    made = logging.Logger("worker.test")
    made.addHandler(handler)
    return made


def lines(written: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in written.getvalue().splitlines()]


def test_a_json_line_names_the_ids_around_it_and_forgets_them_after(written: io.StringIO) -> None:
    log = logger(written, JsonFormatter("setup"))
    with log_about(request_id="req-1"):
        with log_about(job_id="ftjob-1", attempt=2, version=None):
            log.info("both %s", "ids")
        log.warning("one id")
    log.info("no id")
    both, one, none = lines(written)
    assert (both["message"], both["request_id"], both["job_id"], both["attempt"]) == ("both ids", "req-1", "ftjob-1", 2)
    assert "version" not in both
    assert (one["level"], one["request_id"], "job_id" in one) == ("warning", "req-1", False)
    assert none.keys() == {"time", "level", "process", "pid", "logger", "message"}


def test_a_record_is_one_line_whatever_is_in_it(written: io.StringIO) -> None:
    log = logger(written, JsonFormatter("setup"))
    try:
        raise ValueError("two\nlines")
    except ValueError:
        log.exception("it failed\nbadly")
    (line,) = lines(written)
    assert line["message"] == "it failed\nbadly"
    assert "ValueError: two" in line["exception"]
    assert line["time"].endswith("Z")


def test_tasks_at_once_do_not_mix_their_ids(written: io.StringIO) -> None:
    log = logger(written, JsonFormatter("setup"))

    async def work(number: int) -> None:
        with log_about(request_id=f"req-{number}"):
            await asyncio.sleep(0)
            log.info("%d", number)

    async def all_at_once() -> None:
        await asyncio.gather(*(work(number) for number in range(20)))

    asyncio.run(all_at_once())
    assert all(line["request_id"] == f"req-{line['message']}" for line in lines(written))
    assert len(lines(written)) == 20


def test_a_line_for_people_has_each_id_once(written: io.StringIO) -> None:
    log = logger(written, TextFormatter("%(levelname)s %(message)s"))
    with log_about(job_id="ftjob-1", attempt=7):
        log.info("job ftjob-1: starts")
    log.info("plain")
    assert written.getvalue() == "INFO job ftjob-1: starts [attempt=7]\nINFO plain\n"
