from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from datasets import load_from_disk
from transformers import GPT2Config

from shared.claimed_job import ClaimedJob
from shared.database import Database
from shared.document_kinds import kind_of
from shared.errors import BaseModelNotFound, DocumentNotFound, NoDocuments, NothingToLearn, Superseded
from shared.ids import new_id
from shared.models import DEFAULT_PROJECT, Document, Job
from shared.repositories.datasets import DatasetRepository
from shared.repositories.documents import DocumentRepository
from shared.repositories.jobs import JobRepository
from shared.settings import Settings
from shared.storage import Storage
from tests.data import documents as make
from tests.data import tokenizers_of
from worker.data.dataset import load
from worker.data.job import run_setup


@dataclass
class Site:
    """An installation of the test's own: a database, a data folder, and a base model on disk."""

    database: Database
    storage: Storage
    settings: Settings
    model: str

    def upload(self, path: Path) -> str:
        content = path.read_bytes()
        row = Document(
            id=new_id("file-"),
            project_id=DEFAULT_PROJECT,
            filename=path.name,
            kind=kind_of(path.name),
            size_bytes=len(content),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        self.storage.document(row.id).write_bytes(content)
        with self.database.write() as session:
            DocumentRepository(session).add(row)
        return row.id

    def claim(self, **parameters: Any) -> ClaimedJob:
        parameters["config"] = {"model_name": self.model, "max_length": 128, **parameters.get("config", {})}
        with self.database.write() as session:
            JobRepository(session).create(DEFAULT_PROJECT, "setup", parameters)
        with self.database.write() as session:
            claim = JobRepository(session).claim_next("setup", "a worker", 60.0)
        assert claim is not None
        return ClaimedJob(self.database, claim)

    def run(self, job: ClaimedJob) -> dict[str, Any]:
        run_setup(job, self.settings, self.storage)
        row = self.job(job)
        assert row.status == "succeeded"
        assert row.result is not None
        return row.result

    def job(self, job: ClaimedJob) -> Job:
        with self.database.read() as session:
            return JobRepository(session).get(DEFAULT_PROJECT, job.claim.job_id)

    def messages(self, job: ClaimedJob) -> list[str]:
        with self.database.read() as session:
            return [event.message for event in JobRepository(session).events(job.claim.job_id, type="message")]

    def document(self, document_id: str) -> Document:
        with self.database.read() as session:
            return DocumentRepository(session).get(DEFAULT_PROJECT, document_id)


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("base-model")
    GPT2Config(vocab_size=420, n_layer=1, n_head=1, n_embd=8).save_pretrained(folder)
    tokenizers_of.gpt2_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture
def site(database: Database, tmp_path: Path, model_folder: Path) -> Site:
    root = tmp_path / "data"
    return Site(database, Storage(root), Settings(data_dir=root), str(model_folder))


def test_documents_of_all_kinds_become_a_dataset(site: Site, tmp_path: Path) -> None:
    jsonl = "\n".join(json.dumps({"question": f"What is {n}?", "answer": f"It is {n}."}) for n in range(5))
    ids = [
        site.upload(make.write_pdf(tmp_path / "a.pdf")),
        site.upload(make.write_docx(tmp_path / "b.docx")),
        site.upload(make.write(tmp_path / "c.jsonl", jsonl)),
    ]
    job = site.claim()
    result = site.run(job)
    assert (result["documents"], result["failed_documents"], result["prompt_format"]) == (3, [], "text")
    train, validation = load(site.storage.dataset(result["dataset_id"]))
    assert (len(train), len(validation)) == (result["train_examples"], result["validation_examples"])
    assert validation
    with site.database.read() as session:
        dataset = DatasetRepository(session).of_job(job.claim.job_id)
    assert dataset is not None
    assert (dataset.id, dataset.base_model) == (result["dataset_id"], site.model)
    assert {site.document(one).status for one in ids} == {"extracted"}
    assert site.job(job).progress == {"documents_done": 3, "documents": 3}
    assert "Validating training file: a.pdf" in site.messages(job)
    assert not list((site.storage.root / "staging").iterdir())


def test_a_bad_document_is_named_and_does_not_disturb_the_others(site: Site, tmp_path: Path) -> None:
    good = site.upload(make.write_docx(tmp_path / "good.docx"))
    bad = site.upload(make.write_encrypted_pdf(tmp_path / "bad.pdf", "secret"))
    job = site.claim()
    result = site.run(job)
    (failed,) = result["failed_documents"]
    assert (failed["id"], failed["filename"], failed["code"]) == (bad, "bad.pdf", "document_encrypted")
    assert (site.document(bad).status, site.document(bad).error_code) == ("failed", "document_encrypted")
    assert site.document(good).status == "extracted"
    assert any(message.startswith("Skipped bad.pdf: ") for message in site.messages(job))


def test_only_the_wanted_documents_are_taken(site: Site, tmp_path: Path) -> None:
    wanted = site.upload(make.write_docx(tmp_path / "a.docx"))
    other = site.upload(make.write(tmp_path / "b.txt", make.SICK))
    assert site.run(site.claim(document_ids=[wanted, wanted]))["documents"] == 1
    assert site.document(other).status == "uploaded"


def test_an_unknown_document_is_said(site: Site) -> None:
    with pytest.raises(DocumentNotFound):
        site.run(site.claim(document_ids=["file-none"]))


def test_no_document_at_all_and_only_bad_ones_are_told_apart(site: Site, tmp_path: Path) -> None:
    with pytest.raises(NoDocuments, match="upload some"):
        site.run(site.claim())
    site.upload(make.write_empty_pdf(tmp_path / "scan.pdf"))
    with pytest.raises(NoDocuments, match=r"scan\.pdf: The document holds no text"):
        site.run(site.claim())


def test_a_second_setup_gives_the_same_dataset_without_reading_the_documents_again(site: Site, tmp_path: Path) -> None:
    document = site.upload(make.write_docx(tmp_path / "a.docx"))
    first = site.run(site.claim())
    site.storage.document(document).unlink()
    second = site.run(site.claim())
    folders = [site.storage.dataset(result["dataset_id"]) for result in (first, second)]
    assert folders[0] != folders[1]
    contents = [
        {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        for folder in folders
    ]
    assert contents[0] == contents[1]


def test_an_unknown_model_is_said_before_any_document_is_read(site: Site, tmp_path: Path) -> None:
    document = site.upload(make.write_docx(tmp_path / "a.docx"))
    with pytest.raises(BaseModelNotFound):
        site.run(site.claim(config={"model_name": str(tmp_path / "none")}))
    assert site.document(document).status == "uploaded"


def test_an_attempt_that_lost_its_claim_leaves_no_dataset(site: Site, tmp_path: Path) -> None:
    site.upload(make.write_docx(tmp_path / "a.docx"))
    job = site.claim()

    class CancelledAtTheEnd(ClaimedJob):
        def log(self, message: str, **more: Any) -> None:
            super().log(message, **more)
            if message.startswith("Building"):
                with self.database.write() as session:
                    JobRepository(session).cancel(DEFAULT_PROJECT, self.claim.job_id)

    with pytest.raises(Superseded):
        run_setup(CancelledAtTheEnd(job.database, job.claim), site.settings, site.storage)
    assert site.job(job).status == "cancelled"
    assert not list((site.storage.root / "datasets").iterdir())


def test_dpo_is_refused_at_setup_if_no_document_holds_preferences(site: Site, tmp_path: Path) -> None:
    site.upload(make.write_docx(tmp_path / "a.docx"))
    with pytest.raises(NothingToLearn, match="DPO learns from preferences and the documents hold none"):
        site.run(site.claim(config={"method": {"type": "dpo"}}))
    assert not list((site.storage.root / "datasets").iterdir())


def test_what_a_method_leaves_out_is_said_at_setup(site: Site, tmp_path: Path) -> None:
    lines = [{"prompt": f"{n}?", "chosen": f"It is {n}.", "rejected": f"Not {n}."} for n in range(8)]
    jsonl = "\n".join(json.dumps(line) for line in [*lines, {"text": "Some text."}, {"text": "More text."}])
    site.upload(make.write(tmp_path / "a.jsonl", jsonl))
    for method, said in (
        ({"type": "supervised"}, "Supervised training learns the preferred answers of the 8 preference pairs"),
        ({"type": "dpo"}, "DPO learns from the preference pairs alone: 2 other examples are left out"),
    ):
        job = site.claim(config={"method": method})
        assert site.run(job)["preference_pairs"] == 8
        assert [message for message in site.messages(job) if message.startswith(said)]


def test_a_setup_that_is_stopped_goes_on_where_it_was(site: Site, tmp_path: Path) -> None:
    ids = [site.upload(make.write(tmp_path / f"{n}.txt", f"{n} {make.SICK}")) for n in range(3)]
    job = site.claim()
    stops = iter([False, True, True])
    run_setup(job, site.settings, site.storage, lambda: next(stops))
    assert site.job(job).status == "running"  # its caller hands it back
    assert [site.document(one).status for one in ids] == ["extracted", "uploaded", "uploaded"]
    site.storage.document(ids[0]).unlink()  # read already: not needed again
    assert site.run(job)["documents"] == 3


def upload_lines(site: Site, path: Path, numbers: range) -> str:
    lines = (json.dumps({"question": f"What is {n}?", "answer": f"It is {n}."}) for n in numbers)
    return site.upload(make.write(path, "\n".join(lines)))


def test_documents_that_are_held_out_by_name_are_named_in_the_lineage_and_not_trained_on(
    site: Site, tmp_path: Path
) -> None:
    trained = upload_lines(site, tmp_path / "train.jsonl", range(8))
    held_out = upload_lines(site, tmp_path / "valid.jsonl", range(20, 25))
    for document_ids in ([trained], None):
        job = site.claim(document_ids=document_ids, validation_document_ids=[held_out], validation_split=0.5)
        result = site.run(job)
        rows = load_from_disk(str(site.storage.dataset(result["dataset_id"])))
        assert set(rows["train"]["document_id"]) == {trained}
        assert set(rows["validation"]["document_id"]) == {held_out}
        assert (len(rows["train"]), len(rows["validation"])) == (8, 5)
        assert result["validation_document_ids"] == [held_out]
        said = {one for one in site.messages(job) if one.startswith("Validating")}
        assert said == {"Validating training file: train.jsonl", "Validating validation file: valid.jsonl"}
        with site.database.read() as session:
            dataset = DatasetRepository(session).of_job(job.claim.job_id)
        assert dataset is not None
        assert dataset.statistics["validation_document_ids"] == [held_out]


@pytest.mark.parametrize("is_held_out", [True, False])
def test_a_side_none_of_whose_documents_can_be_read_ends_the_setup(
    site: Site, tmp_path: Path, is_held_out: bool
) -> None:
    good = upload_lines(site, tmp_path / "good.jsonl", range(8))
    bad = site.upload(make.write_empty_pdf(tmp_path / "scan.pdf"))
    train, held_out = (good, bad) if is_held_out else (bad, good)
    with pytest.raises(NoDocuments, match=r"scan\.pdf: The document holds no text"):
        site.run(site.claim(document_ids=[train], validation_document_ids=[held_out]))
    assert not list((site.storage.root / "datasets").iterdir())
