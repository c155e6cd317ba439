"""Where the API listens: as it is told, but where nobody has a key, on this machine alone."""

from __future__ import annotations

import logging

from sqlalchemy.exc import SQLAlchemyError

from api.access import is_loopback
from shared.database import Database
from shared.errors import DatabaseUnavailable
from shared.repositories.keys import KeyRepository
from shared.settings import Settings

log = logging.getLogger(__name__)

_LOOPBACK = "127.0.0.1"


def address_to_bind(settings: Settings) -> str:
    """FINETUNED_HOST, or this machine's own address, and a line in the log that says what to do about it.

    Where the database cannot be read yet, the address is as it was set: until somebody has a key, `api/access.py`
    serves other machines from none.
    """
    is_own = settings.host == "localhost" or is_loopback(settings.host)
    if settings.allow_keyless or is_own or _may_have_keys(settings):
        return settings.host
    log.warning(
        "No API key exists, so the API listens on %s instead of %s: create a key with `python -m api.keys create "
        "--scope admin --name NAME` and start the API again, or set FINETUNED_ALLOW_KEYLESS=true if its port is "
        "guarded otherwise.",
        _LOOPBACK,
        settings.host,
    )
    return _LOOPBACK


def _may_have_keys(settings: Settings) -> bool:
    database = Database(settings.resolved_database_url)
    try:
        with database.read() as session:
            return KeyRepository(session).is_any_active()
    except DatabaseUnavailable:
        return not settings.resolved_database_url.startswith("sqlite")  # a file that is not there holds no key
    except SQLAlchemyError:  # not migrated yet
        return False
    finally:
        database.close()
