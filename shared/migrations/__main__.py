"""`python -m shared.migrations`: brings the database of the settings up to date."""

from shared.migrations import upgrade
from shared.settings import get_settings

if __name__ == "__main__":
    upgrade(get_settings().resolved_database_url)
