"""What must not be imported is refused with a sentence, and leaves nothing behind."""

from __future__ import annotations

import io
import json
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from shared.claimed_job import ClaimedJob
from shared.errors import ImportRefused
from shared.models import Job
from shared.registry_parameters import archive_kind
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.storage import Storage
from tests.inference.tiny import add_nan, set_rank
from tests.registry.conftest import Installation, change_config, zipped
from worker.registry.archives import MAX_ENTRIES, pack, unpack
from worker.registry.import_job import run_import

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing.*:FutureWarning")


def assert_refused(installation: Installation, job: Job, code: str, words: str) -> None:
    """Refused for that reason, in words that give no path away; the only folder of a version is the old one."""
    assert (job.status, job.error_code) == ("failed", code)
    assert words in str(job.error_detail)
    assert str(installation.storage.root) not in str(job.error_detail)
    assert [one.name for one in installation.storage.root.joinpath("adapters").iterdir()] == ["version-handbook-1"]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An adapter's folder, as far as its names go."""
    (tmp_path / "sent").mkdir()
    (tmp_path / "sent" / "adapter_config.json").write_text("{}")
    (tmp_path / "sent" / "adapter_model.safetensors").write_bytes(bytes(range(256)) * 100)
    (tmp_path / "out").mkdir()
    return tmp_path / "sent"


def unpacked(archive: Path, max_bytes: int = 1_000_000) -> list[str]:
    """The names that come out of an archive."""
    out = archive.parent / "out"
    unpack(archive, str(archive_kind(archive.name)), out, max_bytes)
    return sorted(path.name for path in out.iterdir())


def tarred(folder: Path, entry: tarfile.TarInfo, content: bytes = b"") -> Path:
    archive = folder.with_suffix(".tar.gz")
    with tarfile.open(archive, "w:gz") as packed:
        packed.add(folder, "adapter")
        packed.addfile(entry, io.BytesIO(content))
    return archive


def test_what_does_not_belong_to_an_adapter_is_left_out(folder: Path) -> None:
    archive = zipped(folder, {"adapter/README.md": b"#", "__MACOSX/adapter/._adapter_config.json": b""})
    assert unpacked(archive) == ["adapter_config.json", "adapter_model.safetensors"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("../adapter_config.json", "lead out of its folder"),
        ("adapter/../../evil.txt", "lead out of its folder"),
        ("/etc/adapter_config.json", "lead out of its folder"),
        ("..\\evil.json", "lead out of its folder"),
        ("adapter/adapter_model.bin", "may be a pickle"),
        ("adapter/optimizer.PT", "may be a pickle"),
        ("other/adapter_config.json", "more than one adapter"),
    ],
)
@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_hostile_name_in_an_archive_is_refused(folder: Path, kind: str, name: str, words: str) -> None:
    archive = zipped(folder, {name: b"{}"}) if kind == "zip" else tarred(folder, tarfile.TarInfo(name))
    with pytest.raises(ImportRefused, match=words):
        unpacked(archive)
    assert not list(folder.parent.rglob("evil*"))


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE])
def test_a_link_or_a_device_in_a_tar_is_refused(folder: Path, kind: bytes) -> None:
    entry = tarfile.TarInfo("adapter/vocab.json")
    entry.type, entry.linkname = kind, "/etc/passwd"
    with pytest.raises(ImportRefused, match="a link or a device"):
        unpacked(tarred(folder, entry))


def test_a_link_in_a_zip_is_refused(folder: Path) -> None:
    archive = zipped(folder)
    with zipfile.ZipFile(archive, "a") as packed:
        entry = zipfile.ZipInfo("adapter/vocab.json")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        packed.writestr(entry, "/etc/passwd")
    with pytest.raises(ImportRefused, match="a link or a device"):
        unpacked(archive)


@pytest.mark.parametrize("name", ["adapter/vocab.json", "adapter/README.md"])
def test_a_bomb_in_a_tar_is_refused_even_where_it_is_skipped(folder: Path, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = 5_000_000
    with pytest.raises(ImportRefused, match="FINETUNED_MAX_IMPORT_BYTES"):
        unpacked(tarred(folder, entry, bytes(5_000_000)))


def test_a_bomb_in_a_zip_is_refused_before_it_has_filled_the_disk(folder: Path) -> None:
    with pytest.raises(ImportRefused, match="FINETUNED_MAX_IMPORT_BYTES"):
        unpacked(zipped(folder, {"adapter/vocab.json": bytes(5_000_000)}))
    assert sum(path.stat().st_size for path in (folder.parent / "out").iterdir()) <= 1_000_000


def test_a_zip_that_lies_about_its_sizes_is_refused(folder: Path) -> None:
    archive = zipped(folder, {"adapter/vocab.json": bytes(3_000_000)})
    content = archive.read_bytes()
    archive.write_bytes(content.replace((3_000_000).to_bytes(4, "little"), (10).to_bytes(4, "little")))
    with pytest.raises(ImportRefused):
        unpacked(archive)


def test_too_many_entries_are_refused(folder: Path) -> None:
    with pytest.raises(ImportRefused, match="more than 100 entries"):
        unpacked(zipped(folder, {f"adapter/{number}.txt": b"" for number in range(MAX_ENTRIES)}))


@pytest.mark.parametrize("name", ["sent.zip", "sent.tar.gz"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"\x1f\x8b\x08 no gzip", bytes(2000)])
def test_what_is_no_archive_is_refused(folder: Path, name: str, content: bytes) -> None:
    folder.with_name(name).write_bytes(content)
    with pytest.raises(ImportRefused, match="damaged"):
        unpacked(folder.with_name(name))


@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_an_archive_that_was_cut_off_is_refused(folder: Path, share: float) -> None:
    for archive in (zipped(folder), tarred(folder, tarfile.TarInfo("adapter/vocab.json"))):
        archive.write_bytes(archive.read_bytes()[: int(archive.stat().st_size * share)])
        with pytest.raises(ImportRefused, match="damaged"):
            unpacked(archive)


def test_a_hostile_archive_fails_its_job(installation: Installation, sent: Path) -> None:
    job = installation.import_files(zipped(sent, {"../adapter_config.json": b"{}"}))
    assert_refused(installation, job, "import_refused", "lead out of its folder")


def set_zero(folder: Path) -> None:
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file(
        {name: torch.zeros_like(one) if "lora_B" in name else one for name, one in tensors.items()},
        folder / "adapter_model.safetensors",
    )


def add_token(folder: Path) -> None:
    path = folder / "tokenizer.json"
    content = json.loads(path.read_text())
    content["added_tokens"].append(dict(content["added_tokens"][0], id=257, content="<new>"))
    path.write_text(json.dumps(content))


def drop(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def write(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: folder.joinpath(name).write_text(text)


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (add_nan, "not finite numbers"),
        (lambda folder: set_rank(folder, 5), "do not fit its base model"),
        (set_zero, "changes nothing"),
        (add_token, "258 tokens and the base model knows 257"),
        (drop("adapter_config.json"), "There is no adapter_config.json"),
        (drop("adapter_model.safetensors"), "There is no adapter_model.safetensors"),
        (write("adapter_config.json", "[]"), "not a JSON object"),
        (write("adapter_config.json", "[" * 100_000), "not JSON"),
        (write("adapter_model.safetensors", "nonsense"), "weights are missing or cannot be read"),
        (write("tokenizer.json", "{"), "tokenizer files cannot be loaded"),
        (write("chat_template.jinja", "{% for a in range(9) %}{% endfor %}"), "chat template that is not its base"),
        (lambda folder: change_config(folder, lora_alpha=10**400), "far too large"),
        (lambda folder: change_config(folder, peft_type="IA3"), "not LoRA"),
        (lambda folder: change_config(folder, modules_to_save=["lm_head"]), "modules_to_save"),
        (lambda folder: change_config(folder, target_modules="(a+)+$"), "regular expression"),
        (lambda folder: change_config(folder, target_modules=["nowhere"]), "do not fit its configuration"),
        (lambda folder: change_config(folder, base_model_name_or_path=None), "names no base model"),
        (lambda folder: change_config(folder, lora_dropout="much"), "lora_dropout"),
        (lambda folder: change_config(folder, layers_pattern="h"), "contradicts itself"),
    ],
)
def test_an_adapter_that_cannot_be_served_is_refused(
    installation: Installation, sent: Path, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(sent)
    assert_refused(installation, installation.import_files(zipped(sent)), "import_refused", words)


def test_a_base_model_that_is_not_allowed_is_refused(installation: Installation, sent: Path) -> None:
    change_config(sent, base_model_name_or_path="somebody/model")
    job = installation.import_files(zipped(sent))
    assert_refused(installation, job, "model_not_allowed", "FINETUNED_ALLOWED_MODELS")


def test_an_import_that_was_cancelled_leaves_no_version_and_no_files(installation: Installation, sent: Path) -> None:
    def cancel_first(job: ClaimedJob, settings: Settings, storage: Storage, should_stop: Callable[[], bool]) -> None:
        with job.database.write() as session:
            JobRepository(session).cancel("default", job.claim.job_id)
        run_import(job, settings, storage, should_stop)

    archive = zipped(sent)
    assert installation.import_files(archive, runner=cancel_first).status == "cancelled"
    assert len(list(installation.storage.root.joinpath("adapters").iterdir())) == 1
    assert not installation.is_tidy()
    assert installation.import_files(archive).status == "succeeded"  # which also removes what the other left
    assert installation.is_tidy()


def test_what_is_packed_has_neither_times_nor_owners(tmp_path: Path) -> None:
    for number, name in enumerate(("one", "two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "b.txt").write_text("b")
        (tmp_path / name / "a.txt").write_text("a")
        (tmp_path / name / "a.txt").chmod(0o600 + 0o44 * number)
        pack(tmp_path / name, tmp_path / f"{name}.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
