"""The serving benchmark runs on a real stack, and finds nothing lost or mixed there."""

from __future__ import annotations

import pytest

from bench.serving import _parsed, _rows, measure_on
from cli.client import Client
from shared.settings import Settings
from tests.end_to_end.conftest import RunningStack


@pytest.mark.filterwarnings("ignore")
def test_a_real_stack_under_load_and_promotions_loses_and_mixes_nothing(stack: RunningStack) -> None:
    settings = Settings(data_dir=stack.data_dir, base_model="demo", _env_file=None)
    seconds = ["--overhead-seconds", "0.5", "--capacity-seconds", "0.5", "--load-seconds", "0.5", "--promotions", "3"]
    with Client(str(stack.http.base_url)) as client:
        results = measure_on(settings, client, _parsed(["--quick", *seconds]))
    assert results.overhead_errors == results.load_errors == []
    assert len(results.added) == len(results.engine) > 0
    assert 0 < min(results.engine) < max(results.end_to_end)
    swapping = results.swapping
    assert (swapping.num_promotions, swapping.failed, swapping.num_mixed, swapping.num_stale) == (3, [], 0, 0)
    assert swapping.num_answers > 0
    assert len(_rows(results)) == 12
