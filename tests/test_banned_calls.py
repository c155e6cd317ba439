"""What no part of the product may call: whatever can run code that it has read."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from shared.queue import celery_app
from shared.settings import Settings

ROOT = Path(__file__).parents[1]
PACKAGES = ("api", "worker", "shared", "cli", "ui")
BANNED_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
BANNED_CALLS = {
    "eval",
    "exec",
    "compile",
    "__import__",
    "torch.load",
    "yaml.load",
    "yaml.unsafe_load",
    "numpy.load",
    "np.load",
}
# The process with limits that makes safetensors of pickled weights; tensors alone are made of what it reads.
PERMITTED = {"worker/base_models/unpickling.py: torch.load(weights_only=True)"}


def banned(source: str) -> Iterator[str]:
    """What the source must not hold."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names if one.name.split(".")[0] in BANNED_MODULES)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in BANNED_MODULES:
            yield str(node.module)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in BANNED_CALLS:
            yield ast.unparse(node.func) + ("(weights_only=True)" if _is_of_tensors_alone(node) else "")
        elif isinstance(node, ast.keyword) and node.arg == "trust_remote_code" and not _is_false(node.value):
            yield "trust_remote_code"
        elif isinstance(node, ast.keyword) and node.arg == "shell" and not _is_false(node.value):
            yield "shell"
        elif isinstance(node, ast.Dict):
            yield from (
                "trust_remote_code"
                for key, value in zip(node.keys, node.values, strict=True)
                if isinstance(key, ast.Constant) and key.value == "trust_remote_code" and not _is_false(value)
            )


def _is_of_tensors_alone(call: ast.Call) -> bool:
    given = {one.arg: one.value for one in call.keywords}.get("weights_only")
    return isinstance(given, ast.Constant) and given.value is True


def _is_false(value: ast.expr) -> bool:
    return isinstance(value, ast.Constant) and value.value is False


@pytest.mark.parametrize("package", PACKAGES)
def test_nothing_in_the_product_can_run_code_that_it_reads(package: str) -> None:
    found = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in (ROOT / package).rglob("*.py")
        for name in banned(path.read_text(encoding="utf-8"))
    }
    assert found == {one for one in PERMITTED if one.startswith(f"{package}/")}


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "import torch\ntorch.load(path)", "yaml.load(text)", "eval('1')",
        "load(trust_remote_code=True)", "load(trust_remote_code=chosen)", "{'trust_remote_code': True}",
        "run(x, shell=True)", "torch.load(path, weights_only=True)",
    ],
)  # fmt: skip
def test_the_ban_finds_each_of_them(source: str) -> None:
    assert list(banned(source))


def test_celery_speaks_json_alone() -> None:
    conf = celery_app(Settings(_env_file=None)).conf
    assert set(conf.accept_content) == {"json"}
    assert (conf.task_serializer, conf.result_serializer) == ("json", "json")
