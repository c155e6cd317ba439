"""Shapes of what several processes show."""

from __future__ import annotations

import pytest

from shared.measures import EngineMeasures
from shared.metric_families import families_of_inference
from tests.api.test_metrics import MEASURES

SIZES = {"1": 9.0, "2": 10.0, "4": 12.0, "+Inf": 12.0}


@pytest.mark.parametrize(
    ("by_size", "expected", "total"),
    [((4, 5, 1, 0, 2), SIZES, 15.0), ((3, 2), {"1": 5.0, "+Inf": 5.0}, 2.0), ((), {"1": 0.0, "+Inf": 0.0}, 0.0)],
)
def test_steps_are_counted_by_the_size_of_their_batch(
    by_size: tuple[int, ...], expected: dict[str, float], total: float
) -> None:
    engine = EngineMeasures(num_by_batch_size=by_size)
    families = families_of_inference({"one": MEASURES.model_copy(update={"engines": {"demo": engine}})})
    (family,) = [family for family in families if family.name == "finetuned_batch_size"]
    bounds = {one.labels["le"].removesuffix(".0"): one.value for one in family.samples if one.name.endswith("_bucket")}
    assert bounds == expected
    assert [one.value for one in family.samples if one.name.endswith("_sum")] == [total]
