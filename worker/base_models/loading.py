"""Loads tokenizers and models by hub name or local path, and says what to do when that fails."""

from __future__ import annotations

import importlib
import json
import os
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from shared.base_models import DEMO_MODEL, is_path
from shared.errors import BaseModelNotFound, BaseModelOffline, BaseModelUnsupported, DiskFull
from shared.storage import FULL
from worker.base_models.conversion import convert
from worker.base_models.quantization import load_quantized

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from shared.training_config import Quantization

PROBE_SECONDS = 3.0
# transformers would otherwise ask a service on the hub to convert weights of the older format, behind our back.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")

_PROGRAMS = frozenset(("auto_map", "trust_remote_code", "custom_pipelines", "custom_generate"))

_SAFE = ("model.safetensors", "model.safetensors.index.json")
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json")

# What transformers raises for configurations, tokenizers and weights that contradict themselves or each other.
_FAULTS_OF_FILES = (OSError, ValueError, TypeError, KeyError, AttributeError, RuntimeError)

DEMO_FOLDER = Path(__file__).parent / "demo" / "model"


def source_of(name: str) -> str:
    """What `from_pretrained` is given for `name`: the packaged folder for `demo`, else the name itself."""
    if name == DEMO_MODEL:
        return str(DEMO_FOLDER)
    return str(Path(name).expanduser()) if is_path(name) else name


_importing = threading.Lock()
_building = threading.Lock()


def import_transformers() -> None:
    """Imports it in one thread, while others wait. The package replaces itself while it is imported: a second thread
    that imports it meanwhile keeps the half-made one, which has no names (seen: no `AutoTokenizer`)."""
    with _importing:
        importlib.import_module("transformers")


def quiet_transformers() -> None:
    """For a job, which speaks through its events: no chatter, and no progress bars, which also end a load where the log
    lies on a full disk."""
    import_transformers()
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def load_config(name: str, cache_dir: Path | None = None) -> PretrainedConfig:
    """The model's configuration; raises an error of the `BaseModelError` branch."""
    import_transformers()
    from transformers import AutoConfig, PretrainedConfig

    _check_no_adapter(name)
    _check_no_program(name, _load(PretrainedConfig.get_config_dict, name, cache_dir)[0])
    config: PretrainedConfig = _load(AutoConfig.from_pretrained, name, cache_dir)
    return config


def load_tokenizer(name: str, cache_dir: Path | None = None) -> PreTrainedTokenizerBase:
    """The model's tokenizer. Where it has no pad token, the end token pads (masks tell them apart)."""
    import_transformers()
    from transformers import AutoTokenizer
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    _check_no_program(name, _load(get_tokenizer_config, name, cache_dir))
    tokenizer: PreTrainedTokenizerBase = _load(AutoTokenizer.from_pretrained, name, cache_dir)
    if tokenizer.eos_token_id is None:
        raise BaseModelUnsupported(f"The tokenizer of '{name}' has no end token, so answers would never end.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_model(
    name: str,
    *,
    cache_dir: Path | None = None,
    dtype: torch.dtype | None = None,
    quantization: Quantization = "none",
) -> PreTrainedModel:
    """A causal or seq2seq model in `dtype` (default: fp32) on the CPU, or on the GPU when quantized there.

    From safetensors alone: where a hub model has none, as DialoGPT's, they are made of its pickled weights once. Raises
    an error of the `BaseModelError` branch, `DiskFull` where there is no room for them, and `InvalidRequest` if it is
    to be quantized where bitsandbytes is not installed.
    """
    import torch

    import_transformers()
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = load_config(name, cache_dir)
    loader = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    dtype = dtype or torch.float32
    if not is_path(name) and name != DEMO_MODEL:
        _ensure_safetensors(name, cache_dir)
    load = partial(_load, loader.from_pretrained, name, cache_dir, config=config, dtype=dtype, use_safetensors=True)
    # transformers replaces functions of torch and of its own while it builds a model, and puts back what it found: two
    # models built at once can leave the process without tied weights for good, or with "meta" as its device.
    with _building:
        if quantization != "none":
            return load_quantized(load, quantization, dtype)
        model: PreTrainedModel = load()
    return model


def _load(load: Callable[..., Any], name: str, cache_dir: Path | None, **options: Any) -> Any:
    """What `load`, a `from_pretrained`, gives: from the disk if it has all of it, so that no hub is asked without
    need (its client tries for half a minute a file when there is no network), else from the hub."""
    options = {**options, "cache_dir": cache_dir, "trust_remote_code": False}
    if is_path(name):
        _check_folder(name)
    with _explained(name):
        try:
            return load(source_of(name), local_files_only=True, **options)
        except (OSError, ValueError):
            if name == DEMO_MODEL or is_path(name):
                raise
        _check_reachable(name)
        return load(source_of(name), **options)


def _ensure_safetensors(name: str, cache_dir: Path | None) -> None:
    """Converts the weights of a hub model that has pickled ones alone; none that has others is asked for them."""
    from huggingface_hub import try_to_load_from_cache

    configuration = try_to_load_from_cache(name, "config.json", cache_dir=cache_dir)
    if not isinstance(configuration, str):
        return
    snapshot = Path(configuration).parent
    if any(snapshot.glob("*.safetensors")):
        return
    with _explained(name):
        found = _first(name, _PICKLED, snapshot, cache_dir, is_asking=False)
        if found is None and _first(name, _SAFE, snapshot, cache_dir) is None:
            found = _first(name, _PICKLED, snapshot, cache_dir)
        if found is None:
            return
        files = [found]
        if found.suffix == ".json":
            parts = _check_index(name, found)
            files = [part for one in parts if (part := _first(name, (one,), snapshot, cache_dir)) is not None]
    convert(name, files, snapshot)


def _first(
    name: str, filenames: Iterable[str], snapshot: Path, cache_dir: Path | None, *, is_asking: bool = True
) -> Path | None:
    """The first of these files that the model has: on disk, else, if that is asked, on the hub."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import RemoteEntryNotFoundError

    for filename in filenames:
        if (snapshot / filename).exists():
            return snapshot / filename
        if is_asking:
            _check_reachable(name)
            with suppress(RemoteEntryNotFoundError):
                return Path(hf_hub_download(name, filename, revision=snapshot.name, cache_dir=cache_dir))
    return None


def _check_folder(name: str) -> None:
    """Refuses a folder whose weights could only be read from pickles."""
    folder = Path(source_of(name))
    for index in folder.glob("*.index.json"):
        _check_index(name, index)
    is_whole = any(folder.glob("*.safetensors")) or not any(folder.glob("*.bin"))
    if folder.is_dir() and not is_whole:
        raise BaseModelUnsupported(
            f"The weights in '{name}' are a pickle, which can run code when it is read, so it is never opened; save "
            "them as safetensors: save_pretrained of a current transformers writes them."
        )


def _check_no_adapter(name: str) -> None:
    """Refuses a folder that leads to another model: transformers would load what it names as its base model. (An
    adapter's tokenizer may be loaded.)"""
    if is_path(name) and (Path(source_of(name)) / "adapter_config.json").exists():
        raise BaseModelUnsupported(
            f"'{name}' holds an adapter and not a base model; name the base model, and import the adapter."
        )


def _check_index(name: str, index: Path) -> list[str]:
    """The files that an index of weights names, all beside it."""
    try:
        named = set(json.loads(index.read_bytes())["weight_map"].values())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise BaseModelUnsupported(f"'{name}' has an index of its weights that cannot be read.") from error
    if any(not isinstance(one, str) or one in (".", "..") or "/" in one or "\\" in one for one in named):
        raise BaseModelUnsupported(f"The index of the weights in '{name}' names files outside that folder.")
    return sorted(named)


def _check_no_program(name: str, content: Any) -> None:
    """Refuses a configuration that asks for programs of its own, before anything is made of it."""
    if isinstance(content, dict):
        if asked := sorted(_PROGRAMS & content.keys()):
            raise BaseModelUnsupported(
                f"The base model '{name}' asks for code of its own ({asked[0]}), which is never run; use a model that "
                "transformers knows, or take that key out of its configuration."
            )
        for one in content.values():
            _check_no_program(name, one)
    elif isinstance(content, list):
        for one in content:
            _check_no_program(name, one)


def _check_reachable(name: str) -> None:
    """Refuses within seconds what only an unreachable hub could give."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        raise _offline(name)
    if getproxies():
        return
    hub = urlsplit(constants.ENDPOINT)
    port = hub.port or (80 if hub.scheme == "http" else 443)
    try:
        socket.create_connection((hub.hostname or "", port), PROBE_SECONDS).close()
    except OSError as error:
        raise _offline(name) from error


def _offline(name: str) -> BaseModelOffline:
    return BaseModelOffline(
        f"The base model '{name}' is not on disk and the hub cannot be reached; connect once, or copy the model "
        "into a folder, allow that folder in FINETUNED_ALLOWED_MODELS and name it, or use 'demo'."
    )


@contextmanager
def _explained(name: str) -> Iterator[None]:
    from huggingface_hub.errors import (
        GatedRepoError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        StrictDataclassError,
    )
    from safetensors import SafetensorError
    from torch import OutOfMemoryError

    try:
        yield
    except OutOfMemoryError:  # is a RuntimeError, and no fault of the files
        raise
    except (*_FAULTS_OF_FILES, SafetensorError, StrictDataclassError) as error:
        causes = list(_causes(error))
        if any(isinstance(cause, OSError) and cause.errno in FULL for cause in causes):  # of the model cache
            raise DiskFull() from error
        if any(isinstance(cause, GatedRepoError | RepositoryNotFoundError) for cause in causes):
            raise BaseModelNotFound(
                f"The hub has no model '{name}' that you may read; check its name, or set HF_TOKEN to a token "
                "that has access to it."
            ) from error
        if is_path(name) and not Path(source_of(name)).is_dir():
            raise BaseModelNotFound(f"There is no model folder at '{name}' on the worker's machine.") from error
        if any(isinstance(cause, LocalEntryNotFoundError | ConnectionError) for cause in causes) or (
            not is_path(name) and name != DEMO_MODEL and isinstance(error, OSError)
        ):
            raise _offline(name) from error
        raise BaseModelUnsupported(
            f"'{name}' cannot be loaded: it must be a causal or seq2seq model of transformers, with weights and a "
            "tokenizer."
        ) from error


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
