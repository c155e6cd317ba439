from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import DocumentError
from shared.question_files import Question, check_questions, read_questions

TWO = [Question("Who, and why?", "Odile;\nshe asked"), Question("When?", "1987")]


def _file(folder: Path, content: bytes) -> Path:
    path = folder / "questions"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("kind", "content"),
    [
        (
            "jsonl",
            '{"question": "Who, and why?", "answer": " Odile;\\nshe asked ", "seen": true}\n\n'
            '{"answer": "1987", "question": "When?"}',
        ),
        ("csv", 'question,answer\r\n"Who, and why?","Odile;\nshe asked"\r\n\r\nWhen?,1987\r\n'),
        ("csv", '\ufeff\n Answer ;id;QUESTION\n"Odile;\nshe asked";1;Who, and why?\n1987;;When?'),
    ],
)
def test_questions_are_read_from_json_lines_and_from_csv(tmp_path: Path, kind: str, content: str) -> None:
    assert list(read_questions(_file(tmp_path, content.encode()), kind)) == TWO


@pytest.mark.parametrize(
    ("kind", "content", "said"),
    [
        ("jsonl", b'{"question": "a", "answer": "b"}\n{"question": "a"}', "Line 2: 'answer' must be a text"),
        ("jsonl", b'{"question": ["a"], "answer": "b"}', "Line 1: 'question' must be a text"),
        ("jsonl", b'{"question": "a", "answer": " "}', "Line 1: 'answer' must be a text"),
        ("jsonl", b'{"messages": []}', "Line 1: 'question'"),
        ("jsonl", b'{"question": "%s", "answer": "b"}' % (b"x" * 20_001), "Line 1: 'question' is longer than 20000"),
        ("jsonl", b'{"question": "a", "answer": "b"}\n' * 10_001, "Line 10001: more than 10000 questions"),
        ("jsonl", b"", "holds no line"),
        ("csv", b"question,reply\na,b", "The first line must name the columns"),
        ("csv", b"question,answer,answer\na,b,c", "The first line must name the columns"),
        ("csv", b"question,answer\na,b\na,b,c", "Line 3 has 3 columns, but the header has 2"),
        ("csv", b"\n\nquestion,answer\n\na,", "Line 5: 'answer'"),
        ("csv", b'question,answer\n"a"b,c', "not valid CSV"),
        ("csv", b"question,answer\n" + b"x" * 200_000 + b",b", "not valid CSV"),
        ("csv", b"question,answer\n\xff,b", "not UTF-8"),
        ("csv", b"question,answer\n", "holds no question"),
        ("csv", b"", "The first line must name the columns"),
        ("txt", b"question", "come as jsonl or csv"),
    ],
)
def test_what_is_wrong_with_a_file_of_questions_is_named_by_its_line(
    tmp_path: Path, kind: str, content: bytes, said: str
) -> None:
    with pytest.raises(DocumentError, match=said):
        check_questions(_file(tmp_path, content), kind)


@given(content=st.binary(max_size=200), is_headed=st.booleans(), kind=st.sampled_from(["csv", "jsonl"]))
def test_any_bytes_are_questions_or_an_error_of_the_tree(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, is_headed: bool, kind: str
) -> None:
    path = _file(tmp_path_factory.getbasetemp(), (b"question,answer\n" if is_headed else b"") + content)
    try:
        check_questions(path, kind)
    except DocumentError:
        return
    assert all(one.question and one.answer for one in read_questions(path, kind))
