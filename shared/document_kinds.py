"""Which kind of document a file is, by its name's ending, and whether its first bytes agree."""

from __future__ import annotations

from pathlib import PurePath

from shared.errors import EmptyDocument, MislabelledDocument, UnsupportedDocument

KIND_BY_ENDING = {
    ".pdf": "pdf",
    ".docx": "docx",
    ".html": "html",
    ".htm": "html",
    ".md": "md",
    ".markdown": "md",
    ".txt": "txt",
    ".text": "txt",
    ".csv": "csv",
    ".jsonl": "jsonl",
}
HEAD_BYTES = 4096  # a shorter head is the whole file

_TEXT_KINDS = frozenset({"html", "md", "txt", "csv", "jsonl"})
_UTF16_BOMS = (b"\xff\xfe", b"\xfe\xff")
_OLE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # old Office files, and new ones that are encrypted
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_NAME_BY_SIGNATURE = {
    b"%PDF-": "a PDF",
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "a zip archive",
    _OLE: "an old Office file",
    b"{\\rtf": "a rich text file",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"GIF8": "an image",
    b"\x1f\x8b": "a gzip archive",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"Rar!": "a rar archive",
    b"\x7fELF": "a program",
    b"SQLite format 3": "a database",
}


def kind_of(filename: str) -> str:
    """The document's kind by its name's ending, in any case; `UnsupportedDocument` for another ending."""
    ending = PurePath(filename).suffix.lower()
    if ending in KIND_BY_ENDING:
        return KIND_BY_ENDING[ending]
    named = f"'{ending[:16]}' files are not supported" if ending else "The file's name has no ending"
    raise UnsupportedDocument(f"{named}; only pdf, docx, html, md, txt, csv and jsonl documents can be used.")


def check_content(kind: str, head: bytes) -> None:
    """Raises if a document of this kind cannot begin with `head`, its first 4 KB or more (or all it has).

    `EmptyDocument` for nothing but white space, `MislabelledDocument` for another format's signature.
    """
    if not head or (len(head) < HEAD_BYTES and not head.strip(b" \t\r\n\f\v\x00\xef\xbb\xbf\xff\xfe")):
        raise EmptyDocument("The document is empty.")
    if kind == "pdf":
        _require(b"%PDF-" in head[:1024], kind, head)  # readers allow some bytes before the signature
    elif kind == "docx":
        # Whether an OLE file is an encrypted docx stands far behind its head: the extractor tells them apart.
        _require(head.startswith((*_ZIP, _OLE)), kind, head)
    elif kind in _TEXT_KINDS:
        _check_text(kind, head)


def _check_text(kind: str, head: bytes) -> None:
    _require(_signature(head) is None, kind, head)
    _require(head.startswith(_UTF16_BOMS) or b"\x00" not in head, kind, head)
    if kind != "html":
        start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:15].lower()
        _require(not start.startswith((b"<!doctype html", b"<html")), kind, head)


def _require(is_right: bool, kind: str, head: bytes) -> None:
    if not is_right:
        found = _signature(head) or ("a web page" if b"<html" in head.lower() else "something else")
        raise MislabelledDocument(f"The file is named as {kind} but holds {found}; rename or convert it.")


def _signature(head: bytes) -> str | None:
    return next((name for signature, name in _NAME_BY_SIGNATURE.items() if head.startswith(signature)), None)
