"""Pickled weights of a hub model become safetensors once, and what is more than tensors is refused and never run."""

from __future__ import annotations

import json
import logging
import os
import pickle
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from shared.errors import BaseModelUnsupported
from tests.tiny_models import save_model
from worker.base_models.loading import load_model

NAME, COMMIT = "acme/tiny", "a" * 40
Pickled = Callable[..., Path]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def pickled(cache: Path) -> Pickled:
    """The snapshot of a tiny model in a hub's cache, as the hub's client leaves it, its weights written by `write`."""

    def make(write: Callable[[dict[str, Any], Path], None], architecture: str = "gpt2") -> Path:
        repository = cache / "models--acme--tiny"
        snapshot = save_model(architecture, repository / "snapshots" / COMMIT)
        (repository / "refs").mkdir()
        (repository / "refs" / "main").write_text(COMMIT)
        (repository / ".no_exist" / COMMIT).mkdir(parents=True)
        (repository / ".no_exist" / COMMIT / "model.safetensors").touch()
        write(dict(load_file(snapshot / "model.safetensors")), snapshot)
        (snapshot / "model.safetensors").rename(cache / "original.safetensors")
        return snapshot

    return make


def whole(tensors: dict[str, Any], snapshot: Path) -> None:
    torch.save(tensors, snapshot / "pytorch_model.bin")


def of_old_torch(tensors: dict[str, Any], snapshot: Path) -> None:
    torch.save(tensors, snapshot / "pytorch_model.bin", _use_new_zipfile_serialization=False)


def tied(tensors: dict[str, Any], snapshot: Path) -> None:
    """As GPT-2's output layer, and with one that is a part of another's memory."""
    words = tensors["transformer.wte.weight"]
    room = torch.zeros(2, *words.shape)
    room[1] = words
    torch.save(
        {**tensors, "transformer.wte.weight": room[1], "lm_head.weight": room[1]}, snapshot / "pytorch_model.bin"
    )


def in_parts(tensors: dict[str, Any], snapshot: Path) -> None:
    places = {}
    for number, (name, tensor) in enumerate(tensors.items()):
        places[name] = f"pytorch_model-{number:05}.bin"
        torch.save({name: tensor}, snapshot / places[name])
    (snapshot / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, "weight_map": places}))


@pytest.mark.parametrize("write", [whole, of_old_torch, tied, in_parts])
def test_a_model_of_pickled_weights_answers_as_it_did_and_is_converted_once(
    write: Callable[[dict[str, Any], Path], None], cache: Path, pickled: Pickled
) -> None:
    snapshot, tokens = pickled(write), torch.tensor([[1, 2, 3]])
    weights = snapshot / "model.safetensors"
    first = load_model(NAME, cache_dir=cache)
    written = weights.stat()
    for pickle_file in snapshot.glob("pytorch_model*"):
        pickle_file.write_bytes(b"never opened again")
    again = load_model(NAME, cache_dir=cache)
    now = weights.stat()
    assert (now.st_ino, now.st_mtime_ns) == (written.st_ino, written.st_mtime_ns)
    assert [path.name for path in snapshot.glob(".converting-*")] == []
    weights.unlink()
    (cache / "original.safetensors").rename(weights)
    asked = load_model(NAME, cache_dir=cache)
    with torch.inference_mode():
        expected, found, found_again = (one.eval()(tokens).logits for one in (asked, first, again))
    assert torch.equal(found, expected)
    assert torch.equal(found_again, expected)


class Evil:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (self.command,)


@pytest.mark.parametrize("kind", ["a plain pickle", "one of torch", "one of old torch", "no tensor", "no pickle"])
def test_what_is_more_than_tensors_is_refused_and_does_nothing(
    kind: str, cache: Path, pickled: Pickled, tmp_path: Path
) -> None:
    canary = tmp_path / "canary"

    def write(tensors: dict[str, Any], snapshot: Path) -> None:
        path, evil = snapshot / "pytorch_model.bin", {**tensors, "evil": Evil(f"touch {canary}")}
        if kind == "a plain pickle":
            path.write_bytes(pickle.dumps(evil["evil"]))
        elif kind == "no tensor":
            torch.save({**tensors, "number": 7}, path)
        elif kind == "no pickle":
            path.write_bytes(b"damaged")
        else:
            torch.save(evil, path, _use_new_zipfile_serialization=kind == "one of torch")

    snapshot = pickled(write)
    with pytest.raises(BaseModelUnsupported, match="holds more than tensors"):
        load_model(NAME, cache_dir=cache)
    assert not canary.exists()
    assert [*snapshot.glob("*.safetensors"), *snapshot.glob(".converting-*")] == []


def test_an_index_that_names_files_elsewhere_is_refused(cache: Path, pickled: Pickled) -> None:
    snapshot = pickled(in_parts)
    index = snapshot / "pytorch_model.bin.index.json"
    index.write_text(index.read_text().replace("pytorch_model-00000.bin", "../../../../outside.bin"))
    with pytest.raises(BaseModelUnsupported, match="outside"):
        load_model(NAME, cache_dir=cache)


def test_who_loads_at_the_same_time_waits_for_one_conversion(
    cache: Path, pickled: Pickled, caplog: pytest.LogCaptureFixture
) -> None:
    pickled(whole)
    with caplog.at_level(logging.INFO, "worker.base_models.conversion"), ThreadPoolExecutor(3) as threads:
        loaded = list(threads.map(lambda _: load_model(NAME, cache_dir=cache), range(3)))
    assert len(loaded) == 3
    said = [one.getMessage() for one in caplog.records if one.name == "worker.base_models.conversion"]
    assert [one.split(" in ")[0] for one in said] == ["pickled weights of acme/tiny converted to safetensors"]
