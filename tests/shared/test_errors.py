"""The error tree holds what its docstring draws."""

from __future__ import annotations

import pickle
import re

import pytest

from shared import errors
from shared.errors import FinetunedError, error_by_code


def classes(kind: type[FinetunedError] = FinetunedError) -> list[type[FinetunedError]]:
    """The tree that services and jobs show; the command has a branch of its own."""
    children = [child for child in kind.__subclasses__() if child.__module__ == errors.__name__]
    return [kind, *(found for child in children for found in classes(child))]


@pytest.mark.parametrize("kind", classes(), ids=lambda kind: kind.__name__)
def test_an_error_survives_pickling(kind: type[FinetunedError]) -> None:
    copy = pickle.loads(pickle.dumps(kind("what to do", param="field")))  # noqa: S301 - our own bytes
    assert (type(copy), copy.detail, copy.param) == (kind, "what to do", "field")


def test_every_error_is_drawn_in_the_docstring_with_its_status_and_code() -> None:
    drawn = set(re.findall(r"(\w+) +(\d{3}) (\w+)", errors.__doc__ or ""))
    assert drawn == {(kind.__name__, str(kind.status), kind.code) for kind in classes()}


def test_an_error_is_found_by_its_code() -> None:
    assert all(error_by_code(kind.code) is kind for kind in classes())
    assert error_by_code("never heard of") is FinetunedError
