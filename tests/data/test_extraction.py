from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared.document_kinds import kind_of
from shared.errors import (
    CorruptDocument,
    EmptyDocument,
    EncryptedDocument,
    ExtractionLimit,
    MislabelledDocument,
)
from tests.data import documents as make
from tests.waiting import until
from worker.data.extraction import ExtractionLimits, _end, _start, extract
from worker.data.texts import ExtractedText

LIMITS = ExtractionLimits()


def read(path: Path, limits: ExtractionLimits = LIMITS) -> ExtractedText:
    return extract(kind_of(path.name), path, limits)


def headings(text: ExtractedText) -> list[str]:
    return [section.heading for section in text.sections]


# Good documents


def test_a_pdf_gives_paragraphs_under_headings_with_pages(tmp_path: Path) -> None:
    text = read(make.write_pdf(tmp_path / "a.pdf"))
    assert headings(text) == ["Leave", "Leave > Sick leave"]
    assert [section.page for section in text.sections] == [1, 2]
    assert text.sections[0].text == make.LEAVE.strip()  # printed on several lines, one paragraph again


def test_running_heads_and_page_numbers_are_no_text(tmp_path: Path) -> None:
    text = read(make.write_long_pdf(tmp_path / "a.pdf", num_pages=4))
    whole = "\n".join(section.text for section in text.sections)
    assert "confidential" not in whole
    assert "Page 2" not in whole
    assert all(f"Chapter {number} says" in whole for number in range(1, 5))


def test_a_pdf_with_an_empty_password_can_be_read(tmp_path: Path) -> None:
    assert headings(read(make.write_encrypted_pdf(tmp_path / "a.pdf", ""))) == ["Leave", "Leave > Sick leave"]


def test_a_docx_gives_headings_lists_and_tables_in_the_body_s_order(tmp_path: Path) -> None:
    text = read(make.write_docx(tmp_path / "a.docx"))
    assert headings(text) == ["Handbook > Leave", "Handbook > Leave > Sick leave"]
    assert text.sections[0].text == (
        f"{make.LEAVE.strip()}\n\n- Book it in Pelican.\n- Ask your lead.\n\nGrade | Days\nSenior | 30"
    )


LONG_PAGE = "".join(f"<p>Paragraph {n} tells how the company works on each and every day.</p>" for n in range(8))


@pytest.mark.parametrize("more", ["", LONG_PAGE], ids=["short", "long"])
def test_a_web_page_gives_its_main_text_with_headings(tmp_path: Path, more: str) -> None:
    page = (
        "<!doctype html><html><head><title>T</title><style>p{}</style></head><body><nav><a href='/'>Home</a></nav>"
        f"<h1>Leave</h1><p>Every employee has <b>27 days</b>.</p>{more}<h2>Carry over</h2><ul><li>six days</li>"
        "<li>before March</li></ul><script>track()</script><footer>Imprint</footer></body></html>"
    )
    text = read(make.write(tmp_path / "a.html", page))
    assert headings(text) == ["Leave", "Leave > Carry over"]
    assert text.sections[0].text.startswith("Every employee has 27 days.")
    assert text.sections[1].text == "- six days\n- before March"


def test_a_web_page_s_declared_encoding_is_used(tmp_path: Path) -> None:
    page = "<html><head><meta charset='iso-8859-2'></head><body><h1>Urlop</h1><p>Zażółć gęślą jaźń.</p></body></html>"
    assert "Zażółć gęślą jaźń." in read(make.write(tmp_path / "a.html", page.encode("iso-8859-2"))).sections[0].text


def test_markdown_gives_a_section_for_each_heading(tmp_path: Path) -> None:
    text = read(
        make.write(
            tmp_path / "a.md",
            "---\ntitle: x\n---\nIntro.\n\n# Leave #\n\nText with `code`.\n\n```\n# no heading\n```\n\n"
            "Sick\n----\n\n![a chart](c.png)\n<!-- note\nto self -->\n- item\n\n# Empty\n",
        )
    )
    assert headings(text) == ["", "Leave", "Leave > Sick"]
    assert text.sections[1].text == "Text with `code`.\n\n```\n# no heading\n```"
    assert text.sections[2].text.split() == ["a", "chart", "-", "item"]
    assert text.is_markdown


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_plain_text_is_read_in_its_encoding(tmp_path: Path, encoding: str) -> None:
    text = read(make.write(tmp_path / "a.txt", "Grüße  an\u00a0alle\r\n\r\n\r\n\r\nTschüß".encode(encoding)))
    assert text.sections[0].text == "Grüße an alle\n\nTschüß"


@pytest.mark.parametrize("header", ["question,answer", "Prompt,Completion", "instruction;response", "input\toutput"])
def test_csv_questions_and_answers_become_conversations(tmp_path: Path, header: str) -> None:
    delimiter = next(sign for sign in ",;\t" if sign in header)
    row = delimiter.join(("What is the Heron?", '"A ""tide"" gauge,\nand a bird; really\t"'))
    text = read(make.write(tmp_path / "a.csv", f"{header}\n{row}\n\n"))
    assert text.conversations == (
        (
            {"role": "user", "content": "What is the Heron?"},
            {"role": "assistant", "content": 'A "tide" gauge,\nand a bird; really'},
        ),
    )


def test_csv_without_questions_gives_its_texts_or_its_rows(tmp_path: Path) -> None:
    texts = read(make.write(tmp_path / "a.csv", "id,text\n1,First text.\n2,Second text.\n"))
    assert [section.text for section in texts.sections] == ["First text.", "Second text."]
    rows = read(make.write(tmp_path / "b.csv", "name,role,phone\nOdile,director,\nJoaquim,support,42\n"))
    assert [section.text for section in rows.sections] == [
        "name: Odile\nrole: director",
        "name: Joaquim\nrole: support\nphone: 42",
    ]
    assert all(section.is_record for section in rows.sections)


def test_jsonl_takes_pairs_messages_and_texts(tmp_path: Path) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Hello", "weight": 0},
        {"role": "user", "content": "Where?"},
        {"role": "assistant", "content": "Bern", "weight": 1},
    ]
    lines = [
        {"question": "Who?", "answer": "Odile"},
        {"prompt": "Say", "completion": "this"},
        {"instruction": "Sum up", "input": "a text", "output": "short"},
        {"messages": messages},
        {"text": "Running text.", "source": "x"},
    ]
    text = read(make.write(tmp_path / "a.jsonl", "\n".join(json.dumps(line) for line in lines) + "\n\n"))
    assert [turns[0]["content"] for turns in text.conversations] == ["Who?", "Say", "Sum up\na text", "Be brief."]
    assert list(text.conversations[3]) == messages
    assert [section.text for section in text.sections] == ["Running text."]


# Bad documents


def test_a_pdf_without_text_is_empty(tmp_path: Path) -> None:
    with pytest.raises(EmptyDocument, match="OCR"):
        read(make.write_empty_pdf(tmp_path / "a.pdf"))


@pytest.mark.parametrize("name", ["a.pdf", "a.docx", "a.html", "a.md", "a.txt", "a.csv", "a.jsonl"])
def test_an_empty_file_is_empty(tmp_path: Path, name: str) -> None:
    with pytest.raises(EmptyDocument):
        read(make.write(tmp_path / name, b"\n"))


@pytest.mark.parametrize(
    ("name", "content"),
    [("a.html", "<html><body></body></html>"), ("a.csv", "question,answer\n"), ("a.md", "<!-- nothing -->")],
)
def test_a_file_whose_text_is_empty_is_empty(tmp_path: Path, name: str, content: str) -> None:
    with pytest.raises(EmptyDocument):
        read(make.write(tmp_path / name, content))


def test_a_pdf_with_a_password_is_encrypted(tmp_path: Path) -> None:
    with pytest.raises(EncryptedDocument):
        read(make.write_encrypted_pdf(tmp_path / "a.pdf", "secret"))


def test_an_encrypted_docx_is_told_from_an_old_doc(tmp_path: Path) -> None:
    ole = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(9000)
    with pytest.raises(EncryptedDocument):
        read(make.write(tmp_path / "a.docx", ole + "EncryptedPackage".encode("utf-16-le")))
    with pytest.raises(MislabelledDocument, match="old Office"):
        read(make.write(tmp_path / "b.docx", ole + "WordDocument".encode("utf-16-le")))


def test_a_damaged_pdf_or_docx_is_corrupt(tmp_path: Path) -> None:
    pdf = make.write_pdf(tmp_path / "a.pdf").read_bytes()
    with pytest.raises(CorruptDocument):
        read(make.write(tmp_path / "b.pdf", pdf[:60] + b"garbage" * 20))
    docx = make.write_docx(tmp_path / "a.docx").read_bytes()
    with pytest.raises(CorruptDocument):
        read(make.write(tmp_path / "b.docx", docx[: len(docx) // 2]))


def test_another_zip_archive_is_no_docx(tmp_path: Path) -> None:
    with pytest.raises(MislabelledDocument):
        read(make.write(tmp_path / "a.docx", make.zip_bytes(**{"xl/workbook.xml": b"<x/>"})))


def test_content_of_another_kind_is_mislabelled(tmp_path: Path) -> None:
    with pytest.raises(MislabelledDocument):
        read(make.write(tmp_path / "a.txt", make.write_pdf(tmp_path / "a.pdf").read_bytes()))


def test_text_with_null_bytes_far_inside_is_corrupt(tmp_path: Path) -> None:
    with pytest.raises(CorruptDocument, match="null bytes"):
        read(make.write(tmp_path / "a.txt", b"words " * 5000 + b"\x00"))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"text": "a"}\n{"text": "b"', "Line 2 is not valid JSON"),
        ('{"text": "a"}\n[1]', "Line 2 is not a JSON object"),
        ('{"question": "a"}', "Line 1: 'answer' is missing"),
        ('\n{"prompt": "a", "completion": ""}', "Line 2: 'completion' must be a text"),
        ('{"prompt": "a", "completion": 7}', "Line 1: 'completion' must be a text"),
        ('{"quest": "a"}', "Line 1 needs 'messages'"),
        ('{"messages": []}', "Line 1: 'messages' must be a list"),
        ('{"messages": [{"role": "user", "content": "a"}]}', "Line 1: 'messages' has no assistant"),
        ('{"messages": [{"role": "robot", "content": "a"}]}', r"Line 1: messages\[0\].role"),
        ('{"messages": [{"role": "assistant"}]}', r"Line 1: messages\[0\].content"),
        ('{"messages": [{"role": "assistant", "content": "a", "weight": 2}]}', r"messages\[0\].weight must be 0 or 1"),
        ('{"messages": [{"role": "user", "content": "a", "weight": 1}]}', r"messages\[0\].weight is allowed"),
    ],
)
def test_a_wrong_line_of_jsonl_is_named_with_its_field(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(CorruptDocument, match=said):
        read(make.write(tmp_path / "a.jsonl", content))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("1,2\n3,4\n", "must name the columns"),
        ("a,a\nb,c\n", "must name the columns"),
        ("question,answer\nWho?,\n", "Line 2: 'answer' is empty"),
        ("question,answer\nWho?,Odile\nWhat?,a,b\n", "Line 3 has 3 columns"),
        ('question,answer\nWho?,"Odile\n', "not valid CSV"),
    ],
)
def test_a_wrong_csv_names_the_line(tmp_path: Path, content: str, said: str) -> None:
    with pytest.raises(CorruptDocument, match=said):
        read(make.write(tmp_path / "a.csv", content))


def test_a_missing_file_is_said(tmp_path: Path) -> None:
    with pytest.raises(CorruptDocument, match="missing"):
        read(tmp_path / "a.txt")


# Limits


@pytest.mark.parametrize("beginning", ["![", "![a](", "<!--", "<!-- --", "--><!--"])
def test_beginnings_without_an_end_do_not_take_quadratic_time(tmp_path: Path, beginning: str) -> None:
    text = read(
        make.write(tmp_path / "a.md", "Some words.\n" + beginning * 40_000), ExtractionLimits(timeout_seconds=8)
    )
    assert text.sections[0].text.startswith("Some words.")


def test_comments_and_pictures_are_left_out_of_markdown(tmp_path: Path) -> None:
    content = "One<!-- a --> two ![three](a.png) <!---->four <!-- without an end"
    assert read(make.write(tmp_path / "a.md", content)).sections[0].text == "One two three four <!-- without an end"


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExtractionLimit, match="inflates"):
        read(make.write_zip_bomb_docx(tmp_path / "a.docx"))


def test_an_archive_of_thousands_of_entries_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ExtractionLimit, match="entries"):
        read(make.write_crowded_docx(tmp_path / "a.docx"))


def test_more_text_than_the_limit_is_refused(tmp_path: Path) -> None:
    path = make.write(tmp_path / "a.txt", "words " * 10_000)
    with pytest.raises(ExtractionLimit, match="split it"):
        read(path, ExtractionLimits(output_bytes=10_000))


def test_a_document_that_needs_too_much_memory_is_refused(tmp_path: Path) -> None:
    path = make.write(tmp_path / "a.txt", "words " * 5_000_000)
    with pytest.raises(ExtractionLimit, match="memory"):
        read(path, ExtractionLimits(memory_bytes=96 * 1024 * 1024))


def test_a_document_that_takes_too_long_is_stopped_and_leaves_no_process(tmp_path: Path) -> None:
    slow = make.write(tmp_path / "slow.html", "<p>Much to read.</p>" * 200_000)
    started = time.monotonic()
    with pytest.raises(ExtractionLimit, match=r"0\.3 seconds"):
        read(slow, ExtractionLimits(timeout_seconds=0.3))
    assert time.monotonic() - started < 10
    assert not [one for one in Path("/proc").glob("[0-9]*/cmdline") if str(slow).encode() in _content(one)]


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # the process has just gone
        return b""


def test_a_reader_that_crashes_means_a_corrupt_document_and_the_next_one_is_read(tmp_path: Path) -> None:
    with pytest.raises(CorruptDocument):
        extract("no such kind", make.write(tmp_path / "a.txt", "x"), LIMITS)
    assert read(make.write(tmp_path / "b.txt", "Fine.")).sections[0].text == "Fine."


def test_the_reader_sees_no_secret_of_the_service_and_is_killed_while_it_waits(tmp_path: Path) -> None:
    """Facts about the child, seen through /proc while it waits for a document that never ends."""
    fifo = tmp_path / "a.txt"
    os.mkfifo(fifo)
    child = _start("txt", fifo, LIMITS)
    with child, fifo.open("wb"):  # opens once the child has opened it for reading: it runs
        environment = Path(f"/proc/{child.pid}/environ").read_bytes()
        _end(child)
    assert child.returncode == -signal.SIGKILL
    names = {pair.split(b"=")[0] for pair in environment.split(b"\0") if pair}
    assert names <= {b"PYTHONPATH", b"PYTHONUTF8", b"LC_CTYPE"}


def test_the_reader_dies_with_a_killed_worker(tmp_path: Path) -> None:
    fifo = tmp_path / "a.txt"
    os.mkfifo(fifo)
    code = (
        "import sys; from pathlib import Path; from worker.data.extraction import ExtractionLimits, _start\n"
        "child = _start('txt', Path(sys.argv[1]), ExtractionLimits()); print(child.pid, flush=True); child.wait()"
    )
    worker = subprocess.Popen([sys.executable, "-c", code, str(fifo)], stdout=subprocess.PIPE)
    with worker, fifo.open("wb") as document:
        if worker.stdout is None:
            pytest.fail("no pipe")
        worker.stdout.readline()
        worker.kill()
        worker.wait()
        # The reader's end of the pipe closes when it dies: writing then fails.
        until(lambda: not _can_write(document.fileno()), timeout_seconds=10)


def _can_write(descriptor: int) -> bool:
    try:
        return os.write(descriptor, b"x") == 1
    except BrokenPipeError:
        return False
