from __future__ import annotations

import torch
from torch import nn
from transformers.activations import NewGELUActivation

from tests.inference.tiny import make_model
from worker.inference.activations import fuse_activations


def test_a_written_out_activation_becomes_one_operation_with_the_same_outputs() -> None:
    model = make_model("gpt2")
    ids = torch.arange(1, 40)[None]
    with torch.inference_mode():
        expected = model(ids).logits
        assert [one for one in model.modules() if isinstance(one, NewGELUActivation)]
        fuse_activations(model)
        assert not [one for one in model.modules() if isinstance(one, NewGELUActivation)]
        torch.testing.assert_close(model(ids).logits, expected, rtol=1e-4, atol=1e-4)


def test_other_activations_stay() -> None:
    model = make_model("llama")
    before = [type(one) for one in model.modules()]
    fuse_activations(model)
    assert [type(one) for one in model.modules()] == before
    assert not [one for one in model.modules() if isinstance(one, nn.GELU)]
