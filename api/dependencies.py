"""What endpoints ask for: the services, who asks and for which project, and a session of the right kind."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Annotated, cast

from fastapi import Depends, Path, Request
from sqlalchemy.orm import Session

from api.access import authorize
from api.keys.ring import Caller
from api.services import Services


# `async` spares a thread: FastAPI runs plain functions in one.
async def _services(request: Request) -> Services:
    return cast(Services, request.app.state.services)


AppServices = Annotated[Services, Depends(_services)]


AppCaller = Annotated[Caller, Depends(authorize)]


async def _project(caller: AppCaller) -> str:
    return caller.project


Project = Annotated[str, Depends(_project)]


# An id or a name in the path. Nothing else can name a row, and not every database takes every character.
Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9._-]{1,128}$")]


def _read_session(services: AppServices) -> Iterator[Session]:
    with services.database.read() as session:
        yield session


def _write_session(services: AppServices) -> Iterator[Session]:
    with services.database.write() as session:
        yield session


async def _enter(services: AppServices) -> AsyncIterator[None]:
    with services.dispatcher.admission.entering():
        yield


IfThereIsRoom = Depends(_enter)  # of a route that asks; before all that costs more


# The scope "function" ends the session, and commits it, before the answer leaves; background tasks run after that.
ReadSession = Annotated[Session, Depends(_read_session, scope="function")]
WriteSession = Annotated[Session, Depends(_write_session, scope="function")]
