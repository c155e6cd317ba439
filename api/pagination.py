"""Lists, rendered in one place: a cursor, a limit, and whether there is more."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Generic, Literal, TypeVar

from fastapi import Depends, Query
from pydantic import BaseModel

from shared.storable import STORABLE

Item = TypeVar("Item", bound=BaseModel)
Row = TypeVar("Row")


class Page(BaseModel):
    """Which part of a list is wanted."""

    after: str | None
    limit: int


async def _page(
    after: Annotated[
        str | None, Query(max_length=256, pattern=STORABLE, description="`last_id` of the page before.")
    ] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
) -> Page:
    return Page(after=after, limit=limit)


Paging = Annotated[Page, Depends(_page)]


class Listing(BaseModel, Generic[Item]):
    """One page of a list."""

    object: Literal["list"] = "list"
    data: list[Item]
    has_more: bool = False
    first_id: str | None = None
    last_id: str | None = None


def listing(
    rows: Sequence[Row], limit: int, render: Callable[[Row], Item], cursor: Callable[[Row], str | int]
) -> Listing[Item]:
    """The page of the first `limit` rows; a row beyond them says that there is more."""
    shown = rows[:limit]
    return Listing(
        data=[render(row) for row in shown],
        has_more=len(rows) > limit,
        first_id=str(cursor(shown[0])) if shown else None,
        last_id=str(cursor(shown[-1])) if shown else None,
    )
