from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from shared.training_config import FineTuningConfig
from shared.training_method import DpoMethod, SupervisedMethod


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ({"type": "supervised"}, SupervisedMethod()),
        ({"type": "supervised", "supervised": {"hyperparameters": {}}}, SupervisedMethod()),
        ({"type": "dpo"}, DpoMethod(beta=0.1)),
        ({"type": "dpo", "beta": 0.3}, DpoMethod(beta=0.3)),
        ({"type": "dpo", "dpo": {}}, DpoMethod(beta=0.1)),
        ({"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.3}}}, DpoMethod(beta=0.3)),
        ({"type": "dpo", "dpo": {"hyperparameters": {"beta": "auto"}}}, DpoMethod(beta=0.1)),
    ],
)
def test_a_method_is_written_flat_or_as_openai_nests_it(
    given: dict[str, Any], wanted: SupervisedMethod | DpoMethod
) -> None:
    config = FineTuningConfig.model_validate({"method": given})
    assert config.method == wanted
    assert FineTuningConfig.model_validate(config.model_dump(mode="json")) == config


def test_training_is_supervised_unless_it_is_said() -> None:
    assert FineTuningConfig().model_dump(mode="json")["method"] == {"type": "supervised"}


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({"type": "orpo"}, "orpo"),
        ({"beta": 0.1}, "type"),
        ({"type": "supervised", "beta": 0.1}, "beta"),
        ({"type": "dpo", "beta": 0.0}, "beta"),
        ({"type": "dpo", "beta": "much"}, "beta"),
        ({"type": "dpo", "betta": 0.1}, "betta"),
        ({"type": "dpo", "dpo": {"beta": 0.1}}, "dpo.dpo"),
        ({"type": "dpo", "dpo": {"hyperparameters": {"n_epochs": 3}}}, "n_epochs"),
        ({"type": "dpo", "beta": 0.1, "dpo": {"hyperparameters": {"beta": 0.2}}}, "dpo.dpo"),
        ({"type": "dpo", "supervised": {}}, "supervised"),
        ("dpo", "method"),
        (None, "method"),
    ],
)
def test_a_wrong_method_is_refused_by_name(given: Any, named: str) -> None:
    with pytest.raises(ValidationError, match=named):
        FineTuningConfig.model_validate({"method": given})
