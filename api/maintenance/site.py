"""What the doctor looks at."""

from __future__ import annotations

from dataclasses import dataclass

from shared.database import Database
from shared.housekeeping.leftovers import Patience
from shared.settings import Settings
from shared.storage import Storage


@dataclass(frozen=True)
class Site:
    """An installation. `is_deep`: every byte is read and compared with its sum."""

    settings: Settings
    database: Database
    storage: Storage
    is_deep: bool = False

    @property
    def patience(self) -> Patience:
        return Patience.of(self.settings)
