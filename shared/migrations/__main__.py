"""`python -m shared.migrations`: brings the database of the settings up to date."""

from shared.logs import set_up_logging
from shared.migrations import upgrade
from shared.settings import get_settings

if __name__ == "__main__":
    set_up_logging(get_settings().log_format, "migrations")
    upgrade(get_settings().resolved_database_url)
