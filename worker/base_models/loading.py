"""Loads tokenizers and models by hub name or local path, and says what to do when that fails."""

from __future__ import annotations

import importlib
import os
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from shared.base_models import DEMO_MODEL, is_path
from shared.errors import BaseModelNotFound, BaseModelOffline, BaseModelUnsupported
from worker.base_models.quantization import load_quantized

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

    from shared.training_config import Quantization

PROBE_SECONDS = 3.0
# transformers would otherwise ask a service on the hub to convert weights of the older format, behind our back.
os.environ.setdefault("DISABLE_SAFETENSORS_CONVERSION", "1")

DEMO_FOLDER = Path(__file__).parent / "demo" / "model"


def source_of(name: str) -> str:
    """What `from_pretrained` is given for `name`: the packaged folder for `demo`, else the name itself."""
    if name == DEMO_MODEL:
        return str(DEMO_FOLDER)
    return str(Path(name).expanduser()) if is_path(name) else name


_importing = threading.Lock()


def import_transformers() -> None:
    """Imports it in one thread, while others wait. The package replaces itself while it is imported: a second thread
    that imports it meanwhile keeps the half-made one, which has no names (seen: no `AutoTokenizer`)."""
    with _importing:
        importlib.import_module("transformers")


def load_config(name: str, cache_dir: Path | None = None) -> PretrainedConfig:
    """The model's configuration; raises an error of the `BaseModelError` branch."""
    import_transformers()
    from transformers import AutoConfig

    config: PretrainedConfig = _load(AutoConfig.from_pretrained, name, cache_dir)
    return config


def load_tokenizer(name: str, cache_dir: Path | None = None) -> PreTrainedTokenizerBase:
    """The model's tokenizer. Where it has no pad token, the end token pads (masks tell them apart)."""
    import_transformers()
    from transformers import AutoTokenizer

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

    Safetensors where the model has them; DialoGPT's repository, for one, has none, and torch then reads the older
    format with nothing but tensors allowed in it. Raises an error of the `BaseModelError` branch, and `InvalidRequest`
    if it is to be quantized where bitsandbytes is not installed.
    """
    import torch

    import_transformers()
    from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM

    config = load_config(name, cache_dir)
    loader = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    dtype = dtype or torch.float32
    load = partial(_load, loader.from_pretrained, name, cache_dir, config=config, dtype=dtype)
    if quantization != "none":
        return load_quantized(load, quantization, dtype)
    model: PreTrainedModel = load()
    return model


def _load(load: Callable[..., Any], name: str, cache_dir: Path | None, **options: Any) -> Any:
    """What `load`, a `from_pretrained`, gives: from the disk if it has all of it, so that no hub is asked without
    need (its client tries for half a minute a file when there is no network), else from the hub."""
    options = {**options, "cache_dir": cache_dir, "trust_remote_code": False}
    with _explained(name):
        try:
            return load(source_of(name), local_files_only=True, **options)
        except (OSError, ValueError):
            if name == DEMO_MODEL or is_path(name):
                raise
        _check_reachable(name)
        return load(source_of(name), **options)


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
    from huggingface_hub.errors import GatedRepoError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        yield
    except (OSError, ValueError) as error:
        causes = list(_causes(error))
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
