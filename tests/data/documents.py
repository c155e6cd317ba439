"""Documents that the tests make: real files of each kind, good and bad."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import docx
from pypdf import PdfReader, PdfWriter
from reportlab.lib.styles import getSampleStyleSheet
from reportlab.platypus import PageBreak, Paragraph, SimpleDocTemplate

from worker.base_models.formats import Message, Preference
from worker.data.examples import SourceDocument
from worker.data.texts import ExtractedText, Section

LEAVE = "Every full-time employee has 27 days of paid annual leave in a calendar year. " * 3
SICK = "If you are ill and cannot work, call your team lead before 9:30 on the first day. " * 3


def write_pdf(path: Path) -> Path:
    styles = getSampleStyleSheet()
    story = [
        Paragraph("Leave", styles["Heading1"]),
        Paragraph(LEAVE, styles["BodyText"]),
        PageBreak(),
        Paragraph("Sick leave", styles["Heading2"]),
        Paragraph(SICK, styles["BodyText"]),
    ]
    SimpleDocTemplate(str(path)).build(story)
    return path


def write_long_pdf(path: Path, num_pages: int) -> Path:
    """Every page with a running head and its number at the foot."""
    styles = getSampleStyleSheet()
    story = []
    for number in range(1, num_pages + 1):
        story.append(Paragraph("Staff Handbook, confidential", styles["BodyText"]))
        story.append(Paragraph(f"Chapter {number} says: {LEAVE}", styles["BodyText"]))
        story += [Paragraph(f"Page {number} of {num_pages}", styles["BodyText"]), PageBreak()]
    SimpleDocTemplate(str(path)).build(story)
    return path


def write_encrypted_pdf(path: Path, password: str) -> Path:
    writer = PdfWriter(clone_from=PdfReader(write_pdf(path)))
    writer.encrypt(password, owner_password="owner", algorithm="RC4-128")
    writer.write(path)
    return path


def write_empty_pdf(path: Path) -> Path:
    writer = PdfWriter()
    writer.add_blank_page(200, 200)
    writer.write(path)
    return path


def write_docx(path: Path) -> Path:
    document = docx.Document()
    document.add_heading("Handbook", level=0)
    document.add_heading("Leave", level=1)
    document.add_paragraph(LEAVE)
    document.add_paragraph("Book it in Pelican.", style="List Bullet")
    document.add_paragraph("Ask your lead.", style="List Bullet")
    table = document.add_table(rows=2, cols=2)
    for row, (grade, days) in zip(table.rows, (("Grade", "Days"), ("Senior", "30")), strict=True):
        row.cells[0].text, row.cells[1].text = grade, days
    document.add_heading("Sick leave", level=2)
    document.add_paragraph(SICK)
    document.save(str(path))
    return path


def write_zip_bomb_docx(path: Path) -> Path:
    """A real docx with one more part: 64 MB of the same letter."""
    write_docx(path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/media/bomb.bin", b"a" * (64 * 1024 * 1024))
    return path


def write_crowded_docx(path: Path) -> Path:
    write_docx(path)
    with zipfile.ZipFile(path, "a") as archive:
        for number in range(2_001):
            archive.writestr(f"word/media/{number}", b"")
    return path


def zip_bytes(**entries: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def write(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def text_document(name: str, *texts: str, heading: str = "") -> SourceDocument:
    """A document of running text as extraction gives it, one section a text."""
    sections = tuple(Section(text, f"{heading} {number}" if heading else "") for number, text in enumerate(texts))
    return SourceDocument(f"file-{name}", f"sha-{name}", name, ExtractedText(sections))


def pairs_document(name: str, *pairs: tuple[str, str]) -> SourceDocument:
    conversations = tuple(
        ({"role": "user", "content": asked}, {"role": "assistant", "content": answered}) for asked, answered in pairs
    )
    return SourceDocument(f"file-{name}", f"sha-{name}", name, ExtractedText(conversations=conversations))


def preferences_document(name: str, *compared: tuple[str | list[Message], str, str]) -> SourceDocument:
    """Of (prompt, chosen, rejected); a prompt is a question or messages."""
    preferences = tuple(
        Preference(
            prompt=[{"role": "user", "content": asked}] if isinstance(asked, str) else asked,
            chosen=chosen,
            rejected=rejected,
        )
        for asked, chosen, rejected in compared
    )
    return SourceDocument(f"file-{name}", f"sha-{name}", name, ExtractedText(preferences=preferences))
