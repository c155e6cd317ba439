"""Requests that the OpenAPI document allows, and some that it does not: no 5xx, and no response outside its schema."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from tests.faults.hostile_requests_trial import CHECKS, answering_service
from tests.faults.hostile_requests_trial import document as read_document

EXAMPLES_AN_OPERATION = 4
document = read_document()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A running service with workers that answer at once."""
    with answering_service(tmp_path_factory.mktemp("document")) as address:
        yield address


@document.parametrize()
@settings(max_examples=EXAMPLES_AN_OPERATION, derandomize=True, deadline=None, suppress_health_check=list(HealthCheck))
def test_every_operation_answers_as_the_document_says(case: schemathesis.Case, url: str) -> None:
    case.call_and_validate(base_url=url, checks=CHECKS, timeout=20)
