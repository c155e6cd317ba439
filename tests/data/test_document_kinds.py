from __future__ import annotations

import pytest

from shared.document_kinds import check_content, kind_of
from shared.errors import EmptyDocument, MislabelledDocument, UnsupportedDocument
from tests.data.documents import zip_bytes


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("a.pdf", "pdf"),
        ("A.PDF", "pdf"),
        ("a.b.htm", "html"),
        ("x.markdown", "md"),
        ("x.text", "txt"),
        ("x.csv", "csv"),
    ],
)
def test_the_ending_says_the_kind(name: str, kind: str) -> None:
    assert kind_of(name) == kind


@pytest.mark.parametrize("name", ["data.json", "old.doc", "README", ".pdf", "archive.tar.gz"])
def test_another_ending_is_unsupported(name: str) -> None:
    with pytest.raises(UnsupportedDocument):
        kind_of(name)


@pytest.mark.parametrize("kind", ["pdf", "docx", "html", "md", "txt", "csv", "jsonl"])
@pytest.mark.parametrize("head", [b"", b" \r\n\t\n", b"\xef\xbb\xbf\n"])
def test_nothing_but_white_space_is_empty(kind: str, head: bytes) -> None:
    with pytest.raises(EmptyDocument):
        check_content(kind, head)


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("pdf", b"Hello, this is no PDF"),
        ("pdf", zip_bytes(a=b"1")),
        ("docx", b"%PDF-1.7"),
        ("docx", b"plain words"),
        ("txt", b"%PDF-1.7\n"),
        ("txt", zip_bytes(a=b"1")),
        ("txt", b"words\x00words"),
        ("md", b"<!DOCTYPE html><html>"),
        ("csv", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"),
        ("jsonl", b"\x89PNG\r\n\x1a\n"),
        ("html", b"\x7fELF\x02"),
    ],
)
def test_content_of_another_kind_is_mislabelled(kind: str, head: bytes) -> None:
    with pytest.raises(MislabelledDocument, match=f"named as {kind}"):
        check_content(kind, head)


@pytest.mark.parametrize(
    ("kind", "head"),
    [
        ("pdf", b"\n\n%PDF-1.4"),
        ("docx", zip_bytes(a=b"1")),
        ("html", b"<p>Hello"),
        ("txt", "Grüße".encode("utf-16")),
        ("txt", "Grüße".encode("cp1252")),
        ("md", b"# Title\n\n<b>bold</b>"),
        ("csv", b"question,answer\n"),
        ("jsonl", b'{"text": "a"}'),
        ("txt", b" " * 8192),  # the text may begin later
    ],
)
def test_content_of_its_kind_passes(kind: str, head: bytes) -> None:
    check_content(kind, head)
