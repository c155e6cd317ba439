"""Malicious and broken weights and configurations: imported by the real API and job, or loaded as base models."""

from __future__ import annotations

import io
import json
import os
import pickle
import random
import shutil
import struct
import sys
import tarfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from fastapi.testclient import TestClient
from safetensors.torch import load_file, save_file

from api.main import create_app
from shared.base_models import check_allowed
from shared.database import Database
from shared.errors import FinetunedError
from shared.models import Job
from shared.repositories.adapters import AdapterRepository
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.storage import Storage
from tests.databases import migrate
from tests.faults.canary import Canary
from tests.faults.goals import Outcome, Trial
from tests.inference import tiny
from tests.registry.conftest import change_config
from worker.base_models.loading import load_config, load_model, load_tokenizer
from worker.jobs.child import work_on
from worker.registry.import_job import run_import

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
_LOOP = "{% for a in range(99999) %}" * 3 + "{% endfor %}" * 3
_TEMPLATES = {
    "reaches for classes": "{{ ().__class__.__mro__[1].__subclasses__() }}",
    "reaches for globals": "{{ cycler.__init__.__globals__.os.popen('touch canary') }}",
    "never ends": _LOOP,
    "takes all memory": "{{ 'a' * 9999999999 }}",
}
_PROGRAM = {
    "AutoConfig": "evil.Config",
    "AutoModelForCausalLM": "evil.Model",
    "AutoTokenizer": ["evil.Tokenizer", None],
}
Spoil = Callable[[Path], object]


def try_hostile_weights(trial: Trial) -> Outcome:
    """`n` of the cases, drawn by the seed; all of them, if `n` is that much."""
    with Canary() as canary, _watched(trial.folder) as seen:
        registry = _Registry(trial.folder, canary.url)
        cases = [
            *((registry.try_import, label, spoil) for label, spoil in imports(trial.folder, canary.url).items()),
            *((registry.try_base_model, label, spoil) for label, spoil in base_models(canary.url).items()),
            *((registry.try_name, name, None) for name in names(trial.folder, canary.url)),
        ]
        chance = random.Random(trial.seed)
        drawn = chance.sample(cases, trial.n) if trial.n < len(cases) else cases
        violations = []
        for attempt, label, spoil in drawn:
            violations += [f"{label}: {said}" for said in [*attempt(label, spoil), *seen, *map(repr, canary.asked)]]
            seen.clear()
            canary.asked.clear()
        registry.close()
        violations += [f"a canary was made: {path}" for path in trial.folder.rglob("canary*")]
    return Outcome(len(drawn), violations, {"imports": len(imports(trial.folder, "")), "cases": len(cases)})


_watching: list[list[str]] = []


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook stays for ever: it looks only while a trial watches."""
    if not _watching:
        return
    if event == "pickle.find_class" and arguments[0] in ("os", "posix", "builtins", "subprocess"):
        _watching[-1].append(f"a pickle looked for {arguments[0]}.{arguments[1]}")
    if event in ("os.system", "subprocess.Popen"):
        _watching[-1].append(f"{event}{arguments[:2]!r}")
    if event == "socket.connect" and isinstance(arguments[1], tuple) and arguments[1][0] != "127.0.0.1":
        _watching[-1].append(f"a connection to {arguments[1]!r}")


@contextmanager
def _watched(folder: Path) -> Iterator[list[str]]:
    """What is done meanwhile that must not be done."""
    if not getattr(sys, "_finetuned_is_audited", False):
        sys.addaudithook(_audit)
        sys._finetuned_is_audited = True  # type: ignore[attr-defined]
    _watching.append([])
    try:
        yield _watching[-1]
    finally:
        _watching.pop()


class _Registry:
    """A service with one good adapter, its import jobs run as a worker's child runs them."""

    def __init__(self, folder: Path, canary_url: str) -> None:
        self._folder = folder
        self._base = tiny.save_model("gpt2", folder / "models" / "tiny")
        allowed = (str(self._base), f"{folder}/models/*")
        self._settings = Settings(
            data_dir=folder / "data", base_model=str(self._base), allowed_models=allowed, redis_url=f"unix://{folder}/no",
            _env_file=None,
        )  # fmt: skip
        migrate(self._settings.resolved_database_url)
        self._database = Database(self._settings.resolved_database_url)
        self._storage = Storage(self._settings.data_dir)
        version = tiny.publish(self._database, self._storage, self._base, "handbook", 1)
        change_config(self._storage.version(version), base_model_name_or_path=str(self._base))
        self._good = self._storage.version(version)
        self._client = TestClient(
            create_app(self._settings), base_url="http://localhost", raise_server_exceptions=False
        )
        self._client.__enter__()
        self._number = 0

    def close(self) -> None:
        self._client.__exit__(None, None, None)
        self._database.close()

    def try_import(self, label: str, spoil: Spoil) -> Iterator[str]:
        """Refused by the API, or failed by the job; nothing is published. What `spoil` returns is sent."""
        self._number += 1
        folder = self._folder / f"sent-{self._number}"
        shutil.copytree(self._good, folder)
        made = spoil(folder)
        sent = [made] if isinstance(made, Path) else [path for path in sorted(folder.iterdir()) if path.is_file()]
        files = [("files", (path.name, path.read_bytes())) for path in sent]
        answer = self._client.post(f"/fine-tuning/adapters/evil-{self._number}/import", files=files)
        if answer.status_code == 202:
            yield from self._failed(self._worked_on(answer.json()["job_id"]))
        elif not (400 <= answer.status_code < 500 and answer.json().get("detail")):
            yield f"answered with {answer.status_code}"
        with self._database.read() as session:
            names = [one.name for one in AdapterRepository(session).page("default", after=None, limit=9)]
        if names != ["handbook"] or len(list((self._storage.root / "adapters").iterdir())) != 1:
            yield f"something was published: {names}"
        shutil.rmtree(folder)

    def try_base_model(self, label: str, spoil: Spoil) -> Iterator[str]:
        """Refused with a code by what every job loads its base model with."""
        self._number += 1
        folder = self._folder / "models" / f"evil-{self._number}"
        shutil.copytree(self._base, folder)
        spoil(folder)
        try:
            load_config(str(folder))
            load_tokenizer(str(folder))
            load_model(str(folder))
        except FinetunedError as error:
            if not 400 <= error.status < 500:
                yield f"ends with {error.status}"
        else:
            yield "was loaded"
        shutil.rmtree(folder)

    def try_name(self, name: str, _: None) -> Iterator[str]:
        """A model's name that leads elsewhere is refused before anything is made of it."""
        answer = self._client.post("/fine-tuning/setup", json={"model": name})
        if answer.status_code != 422:
            yield f"answered with {answer.status_code}"
        try:
            check_allowed(name, (*self._settings.allowed_models, self._settings.base_model, "acme/*"))
        except FinetunedError:
            return
        yield "is allowed"

    def _worked_on(self, job_id: str) -> Job:
        with self._database.write() as session:
            claim = JobRepository(session).claim_next(("import",), "tests", 60.0)
        assert claim is not None
        self._code = work_on(claim, self._settings, run_import, lambda: False)
        with self._database.read() as session:
            return JobRepository(session).get("default", job_id)

    def _failed(self, job: Job) -> Iterator[str]:
        if job.status != "failed" or not job.error_code or not job.error_detail:
            yield f"the job is {job.status}: {job.error_code} (exit code {self._code})"
        elif job.error_code != "model_not_allowed" and str(self._folder) in job.error_detail:  # that names the setting
            yield f"gives a path away: {job.error_detail}"


def names(folder: Path, url: str) -> list[str]:
    (folder / "models").mkdir(exist_ok=True)
    (folder / "models" / "link").symlink_to("/etc")
    inside = f"{folder}/models"
    return [
        "../evil", "./evil", f"{inside}/../evil", f"{inside}/link", "/etc", "~/evil", "file:///etc", f"{url}/model",
        "acme/../../etc", "acme/..", "acme/evil\x00", "acme/a/b", "acme\\evil", "hf://acme/x", "s3://acme/x", "", " ",
        "a" * 5_000,
    ]  # fmt: skip


class _Evil:
    def __init__(self, command: str) -> None:
        self._command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self._command,)


def imports(folder: Path, url: str) -> dict[str, Spoil]:
    """What is done to a good adapter's folder, by label; an archive that is returned is sent in its place."""
    evil = pickle.dumps(_Evil(f"touch {folder}/canary"))
    pickles = {
        f"a pickle as {name}": lambda sent, name=name: sent.joinpath(name).write_bytes(evil)
        for name in (
            "adapter_model.bin", "adapter_model.pt", "pytorch_model.bin", "optimizer.pth", "weights.ckpt", "a.pkl",
            "training_args.bin", "data.npy", WEIGHTS, "tokenizer.json", CONFIG,
        )
    }  # fmt: skip
    templates = {
        f"a template that {label}": lambda sent, text=text: sent.joinpath("chat_template.jinja").write_text(text)
        for label, text in _TEMPLATES.items()
    }
    headers = {
        f"safetensors with {label}": lambda sent, data=data: sent.joinpath(WEIGHTS).write_bytes(data)
        for label, data in _safetensors().items()
    }
    told: dict[str, dict[str, Any]] = {
        "another base model": {"base_model_name_or_path": "somebody/model"},
        "a base model at an address": {"base_model_name_or_path": f"{url}/model"},
        "a base model in a file": {"base_model_name_or_path": "file:///etc"},
        "a base model outside": {"base_model_name_or_path": "../../../etc"},
        "a base model of the machine": {"base_model_name_or_path": "/etc"},
        "another kind": {"peft_type": "VERA"},
        "a rank of 10 ** 9": {"r": 10**9},
        "a rank below nothing": {"r": -1},
        "an alpha of 400 digits": {"lora_alpha": 10**400},
        "an endless alpha": {"lora_alpha": float("inf")},
        "a pattern that explodes": {"target_modules": "(a+)+$"},
        "weights to be replaced": {"modules_to_save": ["lm_head"]},
        "layers that are not there": {"target_modules": ["nowhere"]},
        "an initialisation that changes the base": {"init_lora_weights": "pissa"},
    }  # fmt: skip
    configs = {
        f"a configuration with {label}": lambda sent, values=values: change_config(sent, **values)
        for label, values in told.items()
    }
    return {
        **pickles, **templates, **headers, **configs,
        "a template in the tokenizer's configuration": lambda sent: _tell(
            sent, "tokenizer_config.json", chat_template=_LOOP
        ),
        "a tokenizer that is a program": lambda sent: _tell(sent, "tokenizer_config.json", auto_map=_PROGRAM),
        "weights that are not numbers": lambda sent: _scale(sent, float("nan")),
        "weights that are endless": lambda sent: _scale(sent, float("inf")),
        "weights of nothing": lambda sent: _scale(sent, 0.0),
        "weights of another shape": lambda sent: _reshape(sent),
        "weights of no bytes": lambda sent: sent.joinpath(WEIGHTS).write_bytes(b""),
        "auto_mapping of a module": lambda sent: _auto_mapping(sent),
        **_archives(),
    }  # fmt: skip


def _safetensors() -> dict[str, bytes]:
    def of(header: bytes, data: bytes = b"", told: int | None = None) -> bytes:
        return struct.pack("<Q", len(header) if told is None else told) + header + data

    tensor = '{"dtype":"F32","shape":[2],"data_offsets":[%d,%d]}'
    return {
        "a header of 2 ** 63 bytes": of(b"{}", told=2**63),
        "a header of 200 MB": of(b"{}", told=200 * 2**20),
        "a header of nothing": of(b"", told=0),
        "a header that is no JSON": of(b"[" * 100_000),
        "overlapping tensors": of(f'{{"a":{tensor % (0, 8)},"b":{tensor % (4, 12)}}}'.encode(), bytes(12)),
        "a hole": of(f'{{"a":{tensor % (8, 16)}}}'.encode(), bytes(16)),
        "offsets behind the end": of(f'{{"a":{tensor % (0, 8)}}}'.encode(), bytes(4)),
        "offsets that go backwards": of(f'{{"a":{tensor % (8, 0)}}}'.encode(), bytes(8)),
        "a name twice": of(f'{{"a":{tensor % (0, 8)},"a":{tensor % (0, 8)}}}'.encode(), bytes(8)),
        "a shape of 2 ** 80": of(b'{"a":{"dtype":"F32","shape":[1099511627776,1099511627776],"data_offsets":[0,0]}}'),
        "an unknown type": of(b'{"a":{"dtype":"EVIL","shape":[0],"data_offsets":[0,0]}}'),
        "no tensor": of(b"{}"),
    }


def _archives() -> dict[str, Spoil]:
    def zipped(sent: Path, name: str, content: bytes = b"{}", mode: int = 0o100644) -> Path:
        archive = sent.with_suffix(".zip")
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as made:
            for path in sent.iterdir():
                made.write(path, path.name)
            entry = zipfile.ZipInfo(name)
            entry.external_attr, entry.compress_type = mode << 16, zipfile.ZIP_DEFLATED
            made.writestr(entry, content)
        return archive

    def tarred(sent: Path, name: str, kind: bytes, link: str = "/etc/passwd", content: bytes = b"") -> Path:
        archive = sent.with_suffix(".tar.gz")
        with tarfile.open(archive, "w:gz", compresslevel=1) as made:
            made.add(sent, "adapter")
            entry = tarfile.TarInfo(name)
            entry.type, entry.linkname, entry.size = kind, link, len(content)
            made.addfile(entry, io.BytesIO(content))
        return archive

    return {
        "a zip that leads out": lambda sent: zipped(sent, "../canary"),
        "a zip of a whole path": lambda sent: zipped(sent, "/tmp/canary"),  # noqa: S108
        "a zip with a link": lambda sent: zipped(sent, "vocab.json", b"/etc/passwd", 0o120777),
        "a zip with a device": lambda sent: zipped(sent, "vocab.json", b"", 0o020666),
        "a zip with a pickle": lambda sent: zipped(sent, "adapter_model.bin"),
        "a tar that leads out": lambda sent: tarred(sent, "adapter/../../canary", tarfile.REGTYPE),
        "a tar with a link": lambda sent: tarred(sent, "adapter/vocab.json", tarfile.SYMTYPE),
        "a tar with a hard link": lambda sent: tarred(sent, "adapter/vocab.json", tarfile.LNKTYPE),
        "a tar with a device": lambda sent: tarred(sent, "adapter/vocab.json", tarfile.CHRTYPE),
        "a tar with a pipe": lambda sent: tarred(sent, "adapter/vocab.json", tarfile.FIFOTYPE),
    }


def base_models(url: str) -> dict[str, Spoil]:
    """What is done to a good base model's folder, by label."""
    return {
        "base model: pickled weights alone": lambda model: _pickled(model),
        "base model: a pickle for safetensors": lambda model: (model / "model.safetensors").write_bytes(
            pickle.dumps(_Evil(f"touch {model.parent.parent}/canary"))
        ),
        "base model: auto_map": lambda model: (_evil_module(model), _tell(model, "config.json", auto_map=_PROGRAM)),
        "base model: auto_map of an unknown type": lambda model: (
            _evil_module(model),
            _tell(model, "config.json", auto_map=_PROGRAM, model_type="evil"),
        ),
        "base model: auto_map of the tokenizer": lambda model: (
            _evil_module(model),
            _tell(model, "tokenizer_config.json", auto_map=_PROGRAM, tokenizer_class="EvilTokenizer"),
        ),
        "base model: trust_remote_code": lambda model: _tell(model, "config.json", trust_remote_code=True),
        "base model: auto_map further in": lambda model: _tell(
            model, "config.json", text_config={"auto_map": _PROGRAM}
        ),
        "base model: an adapter of another": lambda model: (model / CONFIG).write_text(
            json.dumps({"peft_type": "LORA", "base_model_name_or_path": f"{url}/model"})
        ),
        "base model: an unknown type": lambda model: _tell(model, "config.json", model_type="../../evil"),
        "base model: a layer of -1": lambda model: _tell(model, "config.json", n_embd=-1),
        "base model: a width that is a text": lambda model: _tell(model, "config.json", n_embd="wide"),
        "base model: another width": lambda model: _tell(model, "config.json", n_embd=64),
        "base model: no configuration": lambda model: (model / "config.json").unlink(),
        "base model: a configuration that is a list": lambda model: (model / "config.json").write_text("[]"),
        "base model: lists 100,000 deep": lambda model: (model / "config.json").write_text("[" * 100_000),
        "base model: a tokenizer that is no JSON": lambda model: (model / "tokenizer.json").write_text("{"),
        "base model: weights cut off": lambda model: os.truncate(model / "model.safetensors", 5_000),
        "base model: an index that leads out": lambda model: _index(model),
    }


def _tell(folder: Path, name: str, **values: Any) -> None:
    path = folder / name
    path.write_text(json.dumps((json.loads(path.read_text()) if path.is_file() else {}) | values))


def _evil_module(model: Path) -> None:
    (model / "evil.py").write_text(f"open({str(model.parent.parent / 'canary-of-a-module')!r}, 'w')\n")


def _pickled(model: Path) -> None:
    tensors = load_file(model / "model.safetensors")
    torch.save({**tensors, "evil": _Evil(f"touch {model.parent.parent}/canary")}, model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()


def _index(model: Path) -> None:
    (model / "model.safetensors").unlink()
    told = {"weight_map": {"transformer.wte.weight": "../tiny/model.safetensors"}, "metadata": {}}
    (model / "model.safetensors.index.json").write_text(json.dumps(told))


def _scale(sent: Path, factor: float) -> None:
    save_file({name: tensor * factor for name, tensor in load_file(sent / WEIGHTS).items()}, sent / WEIGHTS)


def _reshape(sent: Path) -> None:
    tensors: Mapping[str, torch.Tensor] = load_file(sent / WEIGHTS)
    save_file({name: tensor.repeat(2, 2) for name, tensor in tensors.items()}, sent / WEIGHTS)


def _auto_mapping(sent: Path) -> None:
    change_config(sent, auto_mapping={"base_model_class": "system", "parent_library": "os"}, peft_type=None)
