"""What a page keeps of a job's events stays small, however long the job, and is still right."""

from __future__ import annotations

from typing import Any

import pytest

from tests.ui.browser import Visitor

FEED = """async ({steps, repeatFrom}) => {
  const { JobLog } = await import("./parts/joblog.js");
  const log = new JobLog();
  let id = 0;
  const add = (step) => {
    const data = { step, train_loss: 1 + step / steps, learning_rate: 1e-4 };
    if (step % 500 === 0) data.valid_loss = 2;
    log.add({ id: ++id, type: "metrics", level: "info", message: "", data });
    log.add({ id: ++id, type: "message", level: "info", message: `event ${step}`, data: { decision: step % 2 === 0 } });
  };
  for (let step = 1; step <= steps; step += 1) add(step);
  if (repeatFrom) for (let step = repeatFrom; step <= steps; step += 1) add(step);
  const [x, training, heldOut] = log.losses;
  return { x, training, heldOut, events: log.events.length, last: log.events.at(-1).message, dropped: log.numDropped,
           decisions: log.decisions.length };
}"""


def fed(someone: Visitor, steps: int, repeat_from: int | None = None) -> dict[str, Any]:
    page = someone.open("documents")
    return dict(page.evaluate(FEED, {"steps": steps, "repeatFrom": repeat_from}))


def test_a_short_training_is_kept_point_by_point(someone: Visitor) -> None:
    found = fed(someone, 1000)
    assert found["x"] == list(range(1, 1001))
    assert [one for one in found["heldOut"] if one is not None] == [2, 2]


@pytest.mark.parametrize("steps", [1501, 10_000, 40_001])
def test_a_long_one_is_thinned_out_and_keeps_its_shape(someone: Visitor, steps: int) -> None:
    found = fed(someone, steps)
    assert len(found["x"]) <= 2000
    assert found["x"] == sorted(set(found["x"]))
    assert found["x"][-1] == steps
    known = [(x, loss) for x, loss in zip(found["x"], found["training"], strict=True) if loss is not None]
    assert all(abs(loss - (1 + x / steps)) < 0.01 for x, loss in known)
    assert found["events"] == 400
    assert found["dropped"] == steps - 400
    assert found["last"] == f"event {steps}"


def test_steps_that_a_resumed_attempt_repeats_are_drawn_once(someone: Visitor) -> None:
    found = fed(someone, 3000, repeat_from=2001)
    assert found["x"] == sorted(set(found["x"]))
    assert found["x"][-1] == 3000
