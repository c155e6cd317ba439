from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.batch_parameters import BatchOptions
from shared.settings import Settings
from tests.batches.files import questions, read_output, times_by_line, write_input
from tests.inference.tiny import save_adapter
from worker.inference.batch import answer_file
from worker.inference.models import LoadedModel, load_base


@pytest.fixture(scope="module")
def model(gpt2: Path) -> LoadedModel:
    return load_base(str(gpt2), Settings(base_model=str(gpt2), max_batch_size=4))


@pytest.fixture(scope="module")
def adapter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter("gpt2", tmp_path_factory.mktemp("adapter"), seed=3)


def by_line(path: Path) -> dict[int, dict[str, object]]:
    return {int(line["line"]): line for line in read_output(path)}


def stop_after(rounds: int) -> Iterator[bool]:
    yield from [False] * rounds
    while True:
        yield True


def test_a_file_is_answered_as_its_lines_are_one_by_one(tmp_path: Path, model: LoadedModel, adapter: Path) -> None:
    lines = [
        {"query": f"Hi {number}", "custom_id": f"c{number}", **({"adapter": "ours"} if number % 2 else {})}
        for number in range(1, 9)
    ]
    source = write_input(tmp_path / "in.jsonl", *lines)
    options = BatchOptions(max_new_tokens=8)
    tally = answer_file(model, source, tmp_path / "out.jsonl", adapters={"ours": adapter}, options=options)
    assert (tally.answered, tally.failed) == (8, 0)
    together = by_line(tmp_path / "out.jsonl")
    for number, line in enumerate(lines, 1):
        alone = write_input(tmp_path / f"{number}.jsonl", line)
        answer_file(model, alone, tmp_path / f"{number}.out", adapters={"ours": adapter}, options=options)
        assert together[number] == {**by_line(tmp_path / f"{number}.out")[1], "line": number}
    assert together[1]["adapter"] == "ours"
    assert together[1]["answer"] != together[2]["answer"]


def test_a_stopped_file_is_finished_by_the_next_call(tmp_path: Path, model: LoadedModel) -> None:
    source = write_input(tmp_path / "in.jsonl", *questions(20, max_new_tokens=4), {"query": "x " * 500})
    target = tmp_path / "out.jsonl"
    stops = stop_after(12)
    first = answer_file(model, source, target, num_in_flight=3, should_stop=lambda: next(stops))
    assert 0 < first.answered < 20
    kept = read_output(target)
    done = answer_file(model, source, target)
    assert (done.answered, done.failed) == (20, 1)
    assert times_by_line(target) == dict.fromkeys(range(1, 22), 1)
    assert read_output(target)[: len(kept)] == kept
    assert by_line(target)[21]["error"] is not None


def test_several_answers_to_a_line_come_with_it(tmp_path: Path, model: LoadedModel) -> None:
    source = write_input(tmp_path / "in.jsonl", {"query": "x", "n": 2, "temperature": 1.0, "logprobs": 1})
    answer_file(model, source, tmp_path / "out.jsonl", options=BatchOptions(max_new_tokens=4, seed=1))
    (line,) = read_output(tmp_path / "out.jsonl")
    assert [choice["index"] for choice in line["choices"]] == [0, 1]
    assert line["answer"] == line["choices"][0]["text"]
    assert len(line["logprobs"]) == line["choices"][0]["completion_tokens"]


def test_an_adapter_that_was_not_given_or_does_not_load_is_the_line_s_error(tmp_path: Path, model: LoadedModel) -> None:
    (tmp_path / "broken").mkdir()
    source = write_input(
        tmp_path / "in.jsonl", {"query": "x", "adapter": "broken"}, {"query": "x", "adapter": "none"},
        {"query": "x", "model": "other"}, {"query": "x", "max_new_tokens": 2},
    )  # fmt: skip
    answer_file(model, source, tmp_path / "out.jsonl", adapters={"broken": tmp_path / "broken"})
    codes = {number: (line["error"] or {}).get("code") for number, line in by_line(tmp_path / "out.jsonl").items()}  # type: ignore[attr-defined]
    assert codes == {1: "adapter_broken", 2: "adapter_not_found", 3: "invalid_request", 4: None}
