from __future__ import annotations

import json
from pathlib import Path

import pytest

from shared.batch_parameters import BatchLine, BatchOptions
from shared.errors import InvalidRequest, Superseded
from tests.batches.files import Echo, answer, questions, read_output, times_by_line, write_input
from worker.batches.answering import answer_lines
from worker.batches.lines import count_lines, parse_line, unanswered_lines
from worker.batches.output import OutputFile, Result


def run(source: Path, target: Path, answerer: Echo, num_rounds: int | None = None) -> bool:
    """One attempt, which is asked to stop after so many rounds."""
    rounds = iter(range(num_rounds)) if num_rounds is not None else None
    with OutputFile(target) as output:
        lines = unanswered_lines(source, output.done)
        return answer_lines(
            answerer, lines, output, parse_line, should_stop=lambda: rounds is not None and next(rounds, None) is None
        )


def test_every_line_gets_its_answer_with_its_own_id(tmp_path: Path) -> None:
    source = write_input(tmp_path / "in.jsonl", *questions(50))
    answerer = Echo(num_in_flight=4)
    assert run(source, tmp_path / "out.jsonl", answerer)
    lines = {line["line"]: line for line in read_output(tmp_path / "out.jsonl")}
    assert sorted(lines) == list(range(1, 51))
    assert all(line["custom_id"] == f"q{number}" for number, line in lines.items())
    assert all(line["answer"] == f"Question {number}" for number, line in lines.items())
    assert lines[1]["usage"] == {"prompt_tokens": 2, "completion_tokens": 3}
    assert lines[1]["finish_reason"] == "stop"
    assert answerer.most_open == 4


def test_the_input_is_read_no_faster_than_it_is_answered(tmp_path: Path) -> None:
    source = write_input(tmp_path / "in.jsonl", *questions(50))
    answerer = Echo(num_in_flight=4)
    assert not run(source, tmp_path / "out.jsonl", answerer, num_rounds=1)
    assert answerer.asked == [1, 2, 3, 4]


def test_a_batch_that_is_stopped_again_and_again_answers_each_line_once(tmp_path: Path) -> None:
    source = write_input(tmp_path / "in.jsonl", *questions(60))
    target = tmp_path / "out.jsonl"
    num_attempts = 1
    while not run(source, target, Echo(seed=num_attempts), num_rounds=3):
        num_attempts += 1
    assert num_attempts > 3
    assert times_by_line(target) == dict.fromkeys(range(1, 61), 1)


def test_what_is_wrong_with_a_line_is_its_result_and_stops_no_other(tmp_path: Path) -> None:
    source = write_input(
        tmp_path / "in.jsonl", {"query": "one"}, "{broken", "", {"messages": []}, {"query": "x", "tempo": 1},
        {"query": "too long", "custom_id": "long"}, {"query": "both", "messages": [{"role": "user", "content": "x"}]},
        {"messages": [{"role": "user", "content": "Hi"}]},
    )  # fmt: skip
    assert count_lines(source) == 7
    assert run(source, tmp_path / "out.jsonl", Echo())
    errors = {line["line"]: (line["error"] or {}).get("code") for line in read_output(tmp_path / "out.jsonl")}
    assert errors == {
        1: None, 2: "invalid_request", 4: "invalid_request", 5: "invalid_request", 6: "prompt_too_long",
        7: "invalid_request", 8: None,
    }  # fmt: skip
    long = next(line for line in read_output(tmp_path / "out.jsonl") if line["line"] == 6)
    assert (long["custom_id"], long["answer"], long["usage"]) == ("long", None, None)


def test_a_byte_order_mark_and_a_last_line_without_an_end_are_read(tmp_path: Path) -> None:
    source = tmp_path / "in.jsonl"
    source.write_bytes(b'\xef\xbb\xbf{"query": "a"}\r\n{"query": "b"}')
    assert run(source, tmp_path / "out.jsonl", Echo())
    assert {line["answer"] for line in read_output(tmp_path / "out.jsonl")} == {"a", "b"}


@pytest.mark.parametrize("damage", [b'{"line": 3, "answ', b"\x00\x00\x00\n", b'{"line": 3, "answer": "x"}\n', b"7\n"])
def test_a_torn_or_damaged_line_and_what_is_behind_it_are_answered_again(tmp_path: Path, damage: bytes) -> None:
    source = write_input(tmp_path / "in.jsonl", *questions(5))
    target = tmp_path / "out.jsonl"
    whole = [Result(number, None, answer("", f"kept {number}")).to_json().encode() + b"\n" for number in (2, 1, 4)]
    target.write_bytes(b"".join(whole[:2]) + damage + whole[2])
    answerer = Echo()
    assert run(source, target, answerer)
    assert answerer.asked == [3, 4, 5]
    assert times_by_line(target) == dict.fromkeys(range(1, 6), 1)
    assert [line["answer"] for line in read_output(target)[:2]] == ["kept 2", "kept 1"]


def test_one_that_was_thought_dead_writes_nothing_that_anybody_reads(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    with OutputFile(target) as old:
        old.write([Result(1, None, answer("", "first"))])
        with OutputFile(target) as new:
            old.write([Result(2, None, answer("", "late"))])
            new.write([Result(2, None, answer("", "second"))])
            new.sync()
            with pytest.raises(Superseded):
                old.sync()
    assert [line["answer"] for line in read_output(target)] == ["first", "second"]
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


def test_the_sums_count_what_earlier_attempts_wrote(tmp_path: Path) -> None:
    target = tmp_path / "out.jsonl"
    for number in (1, 2):
        with OutputFile(target) as output:
            output.write([Result(number, None, answer("", "x")), Result(number + 10, None, InvalidRequest())])
    with OutputFile(target) as output:
        tally = output.tally
    assert (tally.answered, tally.failed, tally.prompt_tokens, tally.completion_tokens) == (2, 2, 4, 6)


def test_a_line_s_options_come_before_the_batch_s() -> None:
    batch = BatchOptions(adapter="ours", version=3, temperature=0.5, max_new_tokens=9)
    merged = BatchLine(query="x", temperature=0.0, seed=1).options_over(batch)
    assert (merged.adapter, merged.version, merged.temperature, merged.max_new_tokens) == ("ours", 3, 0.0, 9)
    other = BatchLine(query="x", adapter="other").options_over(batch)
    assert (other.adapter, other.version, other.max_new_tokens) == ("other", None, 9)
    base = BatchLine(query="x", model="demo").options_over(batch)
    assert (base.adapter, base.version, base.model) == (None, None, "demo")
    with pytest.raises(InvalidRequest, match="version needs an adapter"):
        BatchLine(query="x", version=1).options_over(BatchOptions(model="demo"))


def test_several_answers_and_log_probabilities_stand_in_a_line_that_asked_for_them() -> None:
    plain = json.loads(Result(1, None, answer("", "x")).to_json())
    assert not {"choices", "logprobs"} & plain.keys()
    one = answer("", "x").model_copy(update={"logprobs": ()})
    assert "quality" not in plain
    assert json.loads(Result(1, None, one).to_json())["answer"] == "x"
