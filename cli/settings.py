"""The settings, with one sentence for what is wrong with them. The command's own (which service it talks to) is read
from the environment here; the service's are read in `shared/settings.py`."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from cli.errors import CommandError
from shared.settings import Settings, get_settings

Read = TypeVar("Read", bound=BaseSettings)


class ClientSettings(BaseSettings):
    """`FINETUNED_URL` and `FINETUNED_API_KEY`, from the environment or `.env`."""

    model_config = SettingsConfigDict(env_prefix="FINETUNED_", env_file=".env", extra="ignore", frozen=True)

    url: str = Field("http://127.0.0.1:8000", pattern=r"^https?://", description="Address of the API.")
    api_key: SecretStr | None = Field(None, description="The key that is sent with every request; it is never shown.")

    @property
    def secret(self) -> str | None:
        """The key in clear, for the header."""
        return None if self.api_key is None else self.api_key.get_secret_value() or None


def client_settings() -> ClientSettings:
    return _read(ClientSettings)


def service_settings() -> Settings:
    return _read(get_settings)


def _read(read: Callable[[], Read]) -> Read:
    try:
        return read()
    except ValidationError as error:
        complaint = error.errors()[0]
        name = str(complaint["loc"][0]).upper().removeprefix("FINETUNED_")
        raise CommandError(f"FINETUNED_{name}, from the environment or .env: {complaint['msg']}.") from error
    except SettingsError as error:
        raise CommandError(f"The environment or .env: {error}.") from error
