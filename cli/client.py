"""The public HTTP API, as the command calls it: every failure becomes one sentence."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import httpx

from cli.errors import CommandError, RequestRefused, ServiceUnreachable

Json = dict[str, Any]

_TIMEOUT = httpx.Timeout(60.0, connect=5.0)
_ANSWER_SECONDS = 600.0  # a question may wait for a model that is being loaded; the service has its own limit
_EXAMINATION_SECONDS = 3600.0  # every byte may have to be read
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class ServerEvent:
    """One server-sent event with JSON data."""

    name: str
    data: Json


class Client:
    """Calls the API at `url`, with an API key or without. Safe to use from several threads."""

    def __init__(self, url: str, api_key: str | None = None, *, timeout_seconds: float | None = None) -> None:
        self.url = url.rstrip("/")
        if api_key is not None and not (api_key.isascii() and api_key.isprintable()):
            raise CommandError("FINETUNED_API_KEY is no API key; `finetuned keys create` shows one.")
        headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        is_local = urlsplit(url).hostname in _LOOPBACK
        timeout = _TIMEOUT if timeout_seconds is None else httpx.Timeout(timeout_seconds)
        self._http = httpx.Client(
            base_url=self.url,
            timeout=timeout,
            trust_env=not is_local,  # no proxy to ourselves
            verify=not self.url.startswith("http:"),  # without TLS nobody's certificate is read: 25 ms
            headers=headers,
        )

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # Documents

    def upload(self, paths: Sequence[Path], purpose: str = "documents") -> list[Json]:
        """Each file's document, in order; a rejected file has an `error` and no `id`. The purpose `questions` is for
        files that are asked and never learned from."""
        with ExitStack() as stack:
            try:
                files = [("files", (path.name, stack.enter_context(path.open("rb")))) for path in paths]
            except OSError as error:
                raise CommandError(f"{error.filename} cannot be read: {error.strerror}.") from error
            return list(self._call("POST", "/documents", files=files, data={"purpose": purpose})["data"])

    def documents(self, limit: int, purpose: str | None = None) -> list[Json]:
        """The newest documents, newest first; of one purpose alone, if it is given."""
        return self._list("/documents", limit, {} if purpose is None else {"purpose": purpose})

    # Jobs

    def setup(self, wanted: Json) -> Json:
        """Starts a setup job and the training job that waits for it: `{job_id, training_job_id, status}`."""
        return self._call("POST", "/fine-tuning/setup", json=wanted)

    def create_sweep(self, wanted: Json) -> Json:
        """Starts a sweep: `{job_id, status, setup_job_id}`."""
        return self._call("POST", "/fine-tuning/sweeps", json=wanted)

    def sweep(self, sweep_id: str) -> Json:
        """One sweep with its trials."""
        return self._call("GET", f"/fine-tuning/sweeps/{_segment(sweep_id)}")

    def sweeps(self, limit: int) -> list[Json]:
        """The newest sweeps, newest first."""
        return self._list("/fine-tuning/sweeps", limit)

    def jobs(self, limit: int) -> list[Json]:
        """The newest jobs, newest first."""
        return self._list("/fine-tuning/jobs", limit)

    def job(self, job_id: str) -> Json:
        return self._call("GET", f"/fine-tuning/jobs/{_segment(job_id)}")

    def events(self, job_id: str) -> list[Json]:
        """What happened to a job, in order."""
        return list(self._call("GET", f"/fine-tuning/jobs/{_segment(job_id)}/events", params={"limit": 1000})["data"])

    def move(self, job_id: str, action: Literal["cancel", "pause", "resume"]) -> Json:
        return self._call("POST", f"/fine-tuning/jobs/{_segment(job_id)}/{action}")

    # Adapters

    def adapters(self) -> list[Json]:
        return self._list("/fine-tuning/adapters", None)

    def adapter(self, name: str) -> Json:
        """One adapter with its versions and the moves of its alias."""
        return self._call("GET", f"/fine-tuning/adapters/{_segment(name)}")

    def policy(self, name: str) -> Json:
        """Which new versions of an adapter go live."""
        return self._call("GET", f"/fine-tuning/adapters/{_segment(name)}/policy")

    def set_policy(self, name: str, policy: Json) -> Json:
        return self._call("PUT", f"/fine-tuning/adapters/{_segment(name)}/policy", json=policy)

    def promote(self, name: str, version: int) -> Json:
        return self._call("POST", f"/fine-tuning/adapters/{_segment(name)}/promote", json={"version": version})

    def rollback(self, name: str) -> Json:
        return self._call("POST", f"/fine-tuning/adapters/{_segment(name)}/rollback")

    def import_adapter(self, name: str, paths: Sequence[Path], texts: Json) -> Json:
        """Starts the import of an adapter's files, or of an archive of them: `{job_id, status}`."""
        with ExitStack() as stack:
            try:
                files = [("files", (path.name, stack.enter_context(path.open("rb")))) for path in paths]
            except OSError as error:
                raise CommandError(f"{error.filename} cannot be read: {error.strerror}.") from error
            return self._call("POST", f"/fine-tuning/adapters/{_segment(name)}/import", files=files, data=texts)

    def export(self, wanted: Json) -> Json:
        """Starts an export: `{job_id, status, content}`."""
        return self._call("POST", "/fine-tuning/exports", json=wanted)

    def download(self, path: str, target: Path, query: Json | None = None) -> httpx.Headers:
        """Writes what is at `path` of the API into a file that is not there yet; gives the headers."""
        with self._reached(), self._http.stream("GET", path, params=query) as response:
            if response.is_error:
                response.read()
                raise _refused(response)
            try:
                with target.open("xb") as file:
                    file.writelines(response.iter_bytes())
            except OSError as error:
                raise CommandError(f"{target} cannot be written: {error.strerror}.") from error
            return response.headers

    # Evaluations

    def evaluate(self, wanted: Json) -> Json:
        """Starts an evaluation: `{job_id, status, columns}`."""
        return self._call("POST", "/fine-tuning/evaluations", json=wanted)

    def advise(self, wanted: Json) -> Json:
        """Starts what leads to an advice: `{setup_job_id, training_job_id, evaluation_job_id, status}`."""
        return self._call("POST", "/fine-tuning/advice", json=wanted)

    def evaluation(self, evaluation_id: str) -> Json:
        """One evaluation with its report."""
        return self._call("GET", f"/fine-tuning/evaluations/{_segment(evaluation_id)}")

    def evaluations(self, adapter: str | None, limit: int) -> list[Json]:
        """The newest evaluations, newest first, of one adapter or of all."""
        return self._list("/fine-tuning/evaluations", limit, {} if adapter is None else {"adapter": adapter})

    def comparison(self, wanted: Json) -> Json:
        """Two columns side by side, by the parameters of `GET /fine-tuning/comparisons`."""
        return self._call("GET", "/fine-tuning/comparisons", params=wanted)

    # Answers

    def ask(self, question: Json) -> Json:
        """The whole answer to a `POST /fine-tuning/query` body."""
        return self._call("POST", "/fine-tuning/query", json=question, timeout=_ANSWER_SECONDS)

    def ask_streaming(self, question: Json) -> Iterator[ServerEvent]:
        """The answer's events as they come; an `error` event is raised."""
        body = {**question, "stream": True}
        with (
            self._reached(),
            self._http.stream("POST", "/fine-tuning/query", json=body, timeout=_ANSWER_SECONDS) as response,
        ):
            if response.is_error:
                response.read()
                raise _refused(response)
            for event in _events(response.iter_lines()):
                if event.name == "error":
                    raise RequestRefused(str(event.data.get("detail", "The answer broke off.")))
                yield event

    def export_answers(self, wanted: Json, target: Path) -> tuple[int, int]:
        """Writes answers with a thumb into a file that is not there yet; (lines, answers that were left out)."""
        headers = self.download("/fine-tuning/answers/export", target, wanted)
        return int(headers["x-num-lines"]), int(headers["x-num-left-out"])

    def query(self, question: Json) -> Json:
        """The answer to a `POST /query` body, with its sources and who gave it."""
        return self._call("POST", "/query", json=question, timeout=_ANSWER_SECONDS)

    # Keys

    def create_key(self, wanted: Json) -> Json:
        """The new key with its `secret`, which is shown this once."""
        return self._call("POST", "/keys", json=wanted)

    def keys(self) -> list[Json]:
        return self._list("/keys", None)

    def revoke_key(self, key_id: str) -> Json:
        return self._call("DELETE", f"/keys/{_segment(key_id)}")

    # The installation

    def models(self) -> list[Json]:
        """The base models that the installation allows."""
        return list(self._call("GET", "/models")["data"])

    def newest(self, path: str, limit: int) -> list[Json]:
        """The first items of any list, newest first."""
        return self._list(path, limit)

    def status(self) -> Json:
        return self._call("GET", "/fine-tuning/status")

    def doctor(self, *, is_fixing: bool, is_deep: bool) -> Json:
        """What does not match, and with `is_fixing` what became of it."""
        path, wait = "/maintenance/doctor", _EXAMINATION_SECONDS
        if is_fixing:
            return self._call("POST", path, json={"fix": True, "deep": is_deep}, timeout=wait)
        return self._call("GET", path, params={"deep": is_deep}, timeout=wait)

    def readiness(self) -> Json:
        """What is ready, part by part; whether or not the whole is."""
        with self._reached():
            response = self._http.get("/health/ready")
        if response.status_code not in (200, 503):
            raise _refused(response)
        return _json(response)

    # How

    def _list(self, path: str, limit: int | None, wanted: Json | None = None) -> list[Json]:
        """The first `limit` items of a list (None: all), page by page; `wanted` are the list's own parameters."""
        found: list[Json] = []
        after: str | None = None
        while limit is None or len(found) < limit:
            size = 100 if limit is None else min(100, limit - len(found))
            page = self._call(
                "GET", path, params={"limit": size, **(wanted or {}), **({"after": after} if after else {})}
            )
            found += page["data"]
            after = page["last_id"]
            if not page["has_more"]:
                break
        return found

    def _call(self, method: str, path: str, **options: Any) -> Json:
        with self._reached():
            response = self._http.request(method, path, **options)
        if response.is_error:
            raise _refused(response)
        return _json(response)

    @contextmanager
    def _reached(self) -> Iterator[None]:
        try:
            yield
        except httpx.ConnectError as error:
            raise ServiceUnreachable(
                f"Nothing answers at {self.url}; start the service with `finetuned up`, or set FINETUNED_URL."
            ) from error
        except httpx.TimeoutException as error:
            raise ServiceUnreachable(f"{self.url} takes too long to answer; look at its log.") from error
        except httpx.HTTPError as error:
            raise ServiceUnreachable(f"The connection to {self.url} broke off; try again.") from error
        except httpx.InvalidURL as error:
            raise ServiceUnreachable(f"FINETUNED_URL is not an address: {error}.") from error


def check_accepted(uploaded: Sequence[Json]) -> None:
    """Raises if a file was rejected, with the first one's reason."""
    rejected = [one for one in uploaded if one["error"] is not None]
    if rejected:
        more = f" ({len(rejected)} of {len(uploaded)} files were rejected)" if len(uploaded) > 1 else ""
        raise CommandError(f"{rejected[0]['filename']}: {rejected[0]['error']['detail']}{more}")


def _segment(name: str) -> str:
    """A name as one segment of a path."""
    return quote(name, safe="")


def _events(lines: Iterator[str]) -> Iterator[ServerEvent]:
    """Parses `text/event-stream`; comments and fields that we do not use are skipped."""
    name, data = "message", ""
    for line in lines:
        if not line:
            if data:
                yield ServerEvent(name, json.loads(data))
            name, data = "message", ""
            continue
        key, _, value = line.partition(":")
        if key == "event":
            name = value.removeprefix(" ")
        elif key == "data":
            data += value.removeprefix(" ")


def _json(response: httpx.Response) -> Json:
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        raise RequestRefused(f"{response.request.url} does not answer like finetuned; check FINETUNED_URL.")
    return body


def _refused(response: httpx.Response) -> RequestRefused:
    """The service's own sentence; what does not answer as the service does is some other server or a proxy."""
    try:
        detail = response.json()["detail"]
    except (ValueError, KeyError, TypeError):
        detail = None
    if not isinstance(detail, str):
        detail = f"{response.request.url} answered {response.status_code}; is FINETUNED_URL the address of finetuned?"
    return RequestRefused(detail)
