"""Damage to files, by the hand of a random generator, and those who must notice it before they load anything."""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from sqlalchemy import select

from shared.claimed_job import ClaimedJob
from shared.errors import AdapterBroken, DatasetError, ImportRefused
from shared.messages import Question, Sampling
from shared.models import AdapterVersion, ModelCheckpoint
from shared.storage import SUMS, sha256_of
from tests.faults.storage_site import PROJECT, SCENARIOS, Site, empty
from tests.finetuning.conftest import make_examples
from tests.finetuning.installation import write_dataset
from worker.adapter_files import MANIFEST
from worker.data import dataset as datasets_on_disk
from worker.finetuning.checkpoints import Checkpoints, Position
from worker.finetuning.job import run_training
from worker.inference.registry import Registry, Responder
from worker.registry.import_job import run_import

IDENTITY = "run"


@dataclass(frozen=True)
class Victim:
    """A folder that is damaged. `sibling`: another of its kind, whole too. `unnoticed` says what its reader did that
    it should not have; empty: the damage was noticed and nothing was loaded."""

    name: str
    folder: Path
    sibling: Path | None
    unnoticed: Callable[[], str]

    def is_refused_whole(self) -> bool:
        """Whether its reader finds fault with it while there is none. (An import can be tried once only; of it the
        reader's words have to fit.)"""
        return self.name != "import" and not self.unnoticed()


# Ways to damage a folder


def _flip(folder: Path, sibling: Path | None, source: random.Random) -> None:
    _flip_in(_any(folder, source), source)


def _flip_in(path: Path, source: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[source.randrange(len(content))] ^= 1 << source.randrange(8)
    path.write_bytes(content)


def _flip_in_manifest(folder: Path, sibling: Path | None, source: random.Random) -> None:
    _flip_in(_manifest(folder), source)


def _truncate(folder: Path, sibling: Path | None, source: random.Random) -> None:
    path = _any(folder, source)
    path.write_bytes(path.read_bytes()[: source.randrange(path.stat().st_size)])


def _extend(folder: Path, sibling: Path | None, source: random.Random) -> None:
    with _any(folder, source).open("ab") as file:
        file.write(source.choice([b"\n", b" ", b"\0", source.randbytes(source.randrange(1, 100))]))


def _space_in_manifest(folder: Path, sibling: Path | None, source: random.Random) -> None:
    """Whitespace, which a parser of JSON would not mind."""
    path = _manifest(folder)
    content = path.read_bytes()
    place = content.index(b"\n" if b"\n" in content else b" ")
    path.write_bytes(content[:place] + b" " + content[place:])


def _delete(folder: Path, sibling: Path | None, source: random.Random) -> None:
    _any(folder, source).unlink()


def _swap(folder: Path, sibling: Path | None, source: random.Random) -> None:
    one, other = source.sample(_files(folder), 2)
    kept = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(kept)


def _add(folder: Path, sibling: Path | None, source: random.Random) -> None:
    (folder / f"{source.randrange(10**6)}.{source.choice(['json', 'txt', 'safetensors', 'bin', 'py'])}").write_bytes(
        b"{}"
    )


def _empty_manifest(folder: Path, sibling: Path | None, source: random.Random) -> None:
    _manifest(folder).write_bytes(source.choice([b"", b"{}", b"[]", b"null"]))


def _take_siblings_file(folder: Path, sibling: Path | None, source: random.Random) -> None:
    if sibling is not None:
        path = _any(sibling, source)
        shutil.copyfile(path, folder / path.relative_to(sibling))


def _become_sibling(folder: Path, sibling: Path | None, source: random.Random) -> None:
    if sibling is not None:
        empty(folder)
        shutil.copytree(sibling, folder, dirs_exist_ok=True)


DAMAGES = (
    *[_flip] * 6, *[_flip_in_manifest] * 3, *[_truncate] * 4, _extend, _space_in_manifest, _delete, _swap, _add,
    _empty_manifest, _take_siblings_file, _become_sibling,
)  # fmt: skip


def damage(victim: Victim, pristine: Path, source: random.Random) -> str:
    """Damages it in one way, and says in which; tries on where that left every byte as it was."""
    wanted = _contents(pristine)
    while True:
        empty(victim.folder)
        shutil.copytree(pristine, victim.folder, dirs_exist_ok=True)
        way = source.choice(DAMAGES)
        way(victim.folder, victim.sibling, source)
        if _contents(victim.folder) != wanted:
            return way.__name__.strip("_")


def _contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in _files(folder)}


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _any(folder: Path, source: random.Random) -> Path:
    """A file with something in it."""
    return source.choice([path for path in _files(folder) if path.stat().st_size])


def _manifest(folder: Path) -> Path:
    return next((path for name in (MANIFEST, SUMS) if (path := folder / name).exists()), _files(folder)[0])


# Who must notice


def victims(place: Site) -> list[Victim]:
    """Of each kind one, made by the code that makes them."""
    _train(place)
    _train(place)
    return [_checkpoint(place), *_versions(place), *_checkpoint_models(place), _dataset(place), _import(place)]


def _train(place: Site) -> None:
    training = SCENARIOS[0]
    job_id = training.create(place)
    assert job_id is not None
    with place.database() as database:
        training.run(place, database, place.claim(job_id))


def _checkpoint(place: Site) -> Victim:
    """The newest of two, with one of another run as its sibling."""
    folder, other = place.folder / "checkpoints", place.folder / "checkpoints-of-another"
    for step in (1, 2):
        Checkpoints(folder, keep=2, identity=IDENTITY).save({"weight/a": torch.randn(40)}, Position(step=step))
    Checkpoints(other, keep=2, identity="another").save({"weight/a": torch.randn(40)}, Position(step=2))
    older, newer = sorted(folder.iterdir())
    kept = place.folder / "older"
    shutil.copytree(older, kept)

    def unnoticed() -> str:
        told: list[str] = []
        found = Checkpoints(folder, keep=2, identity=IDENTITY).latest(told.append)
        newer.mkdir(exist_ok=True)  # a damaged one is removed
        if found is None or found.position.step != 1:
            return f"went on from {found and found.position}"
        return "" if told else "said nothing"

    return Victim("checkpoint", newer, next(other.iterdir()), unnoticed)


def _versions(place: Site) -> list[Victim]:
    """The second of two versions, which is asked for by number."""
    with place.database() as database, database.read() as session:
        first, second = session.scalars(select(AdapterVersion).order_by(AdapterVersion.number)).all()

    def unnoticed() -> str:
        with place.database() as database:
            found = _served(place, database, adapter="trained", version=2)
            if found:
                return found
            stand_in = Registry(database, place.storage, allows_fallback=True).responder_for(
                _question(place, adapter="trained", version=2, fallback=True)
            )
            with database.read() as session:
                reason = session.get_one(AdapterVersion, second.id).broken_reason
        return "" if reason and stand_in.is_fallback else f"not marked as broken, or served by {stand_in}"

    return [Victim("version", place.storage.version(second.id), place.storage.version(first.id), unnoticed)]


def _checkpoint_models(place: Site) -> list[Victim]:
    with place.database() as database, database.read() as session:
        first, second = session.scalars(select(ModelCheckpoint).order_by(ModelCheckpoint.created_at)).all()

    def unnoticed() -> str:
        with place.database() as database:
            return _served(place, database, checkpoint=second.id)

    return [Victim("checkpoint model", place.storage.version(second.id), place.storage.version(first.id), unnoticed)]


def _served(place: Site, database: object, **asked: object) -> str:
    registry = Registry(database, place.storage, allows_fallback=False)  # type: ignore[arg-type]
    try:
        responder: Responder = registry.responder_for(_question(place, **asked))
    except AdapterBroken:
        return ""
    return f"served by {responder.version and responder.version.files}"


def _question(place: Site, *, fallback: bool = False, **asked: object) -> Question:
    values = {"id": "answer-1", "project_id": PROJECT, "reply_to": "replies", "sampling": Sampling(), "deadline": 1e12}
    given = {"model": str(place.base), "asked_at": 0.0, "fallback": fallback, **asked}
    return Question.model_validate(values | given)


def _dataset(place: Site) -> Victim:
    """The whole training job has to refuse it; what only the row can tell, too."""
    sibling = place.folder / "another-dataset"
    write_dataset(sibling, make_examples(12, seed=3), make_examples(5, seed=4), fingerprint="e" * 64)
    job_id = SCENARIOS[0].create(place)
    assert job_id is not None

    def unnoticed() -> str:
        folder = place.storage.dataset("dataset-1")
        with place.database() as database:
            try:
                if _contents(folder) != _contents(sibling):
                    datasets_on_disk.load(folder)
                else:
                    run_training(
                        ClaimedJob(database, place.claim(job_id)), place.settings, place.storage, lambda: False
                    )
            except DatasetError:
                return ""
        return "trained on"

    return Victim("dataset", place.storage.dataset("dataset-1"), sibling, unnoticed)


def _import(place: Site) -> Victim:
    """What was sent, until the job takes it up."""
    job_id = next(one for one in SCENARIOS if one.name == "import").create(place)
    assert job_id is not None
    folder = place.storage.import_source(job_id)
    sums = {path.name: sha256_of(path) for path in folder.iterdir()}

    def unnoticed() -> str:
        names = {path.name for path in folder.iterdir()}
        if names > sums.keys() and all(sha256_of(folder / name) == sum for name, sum in sums.items()):
            return ""  # what was added beside is not looked at
        with place.database() as database:
            try:
                run_import(ClaimedJob(database, place.claim(job_id)), place.settings, place.storage, lambda: False)
            except ImportRefused as error:
                return "" if "not what was sent" in error.detail else f"refused for another reason: {error.detail}"
        return "imported"

    return Victim("import", folder, None, unnoticed)
