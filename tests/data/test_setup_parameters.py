from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from shared.setup_parameters import SetupParameters


def test_everything_has_a_default_and_survives_the_job_row() -> None:
    parameters = SetupParameters()
    assert parameters.document_ids is None
    assert SetupParameters.model_validate(parameters.model_dump(mode="json")) == parameters


@pytest.mark.parametrize(
    "wrong",
    [
        {"adapter": "../up"},
        {"adapter": ".hidden"},
        {"adapter": "a" * 129},
        {"validation_split": 0.6},
        {"chunk_size": 100, "chunk_overlap": 51},
        {"chunk_overlap": 300},
        {"document_ids": []},
        {"validation_document_ids": []},
        {"document_ids": ["file-a", "file-b"], "validation_document_ids": ["file-b"]},
        {"validation_split": 0, "config": {"early_stopping_patience": 2}},
        {"chunk_sise": 100},
    ],
)
def test_a_wrong_value_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SetupParameters.model_validate(wrong)


def test_early_stopping_may_watch_documents_that_are_held_out_by_name() -> None:
    held_out = {"validation_document_ids": ["file-b"], "validation_split": 0}
    assert SetupParameters.model_validate({**held_out, "config": {"early_stopping_patience": 2}})
