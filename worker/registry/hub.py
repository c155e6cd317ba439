"""The model hub, as exports use it: an adapter's folder goes into a repository."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import httpx
import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled

from shared.errors import HubRefused, HubUnavailable

_REFUSALS = range(400, 500)


class Hub(Protocol):
    """The part of `huggingface_hub.HfApi` that is needed."""

    def create_repo(self, repo_id: str, *, private: bool, exist_ok: bool) -> Any: ...

    def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> Any: ...


def connect() -> Hub:
    """With the token of the worker's environment, which is written nowhere. Raises `HubRefused` without one."""
    if huggingface_hub.constants.HF_HUB_OFFLINE:
        raise HubUnavailable("The worker is offline by HF_HUB_OFFLINE; unset it there, or export with format 'peft'.")
    if huggingface_hub.get_token() is None:
        raise HubRefused("The worker has no token of the hub; set HF_TOKEN in its environment and export again.")
    return huggingface_hub.HfApi()


def push(hub: Hub, repository: str, folder: Path) -> str | None:
    """Puts the folder's files into the repository, which is made, private, if it is not there; gives the commit."""
    try:
        hub.create_repo(repository, private=True, exist_ok=True)
        commit = hub.upload_folder(
            repo_id=repository, folder_path=str(folder), commit_message="Upload of a fine-tuned adapter"
        )
    except HfHubHTTPError as error:
        if error.response is not None and error.response.status_code in _REFUSALS:
            raise HubRefused() from error
        raise HubUnavailable() from error
    except HFValidationError as error:
        raise HubRefused("The hub does not take this name for a repository; see its rules for names.") from error
    except (OfflineModeIsEnabled, httpx.HTTPError, ConnectionError, TimeoutError) as error:
        raise HubUnavailable() from error
    return getattr(commit, "oid", None)
