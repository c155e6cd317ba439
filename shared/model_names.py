"""How models are named in the OpenAI dialect: fine-tuned models and their checkpoints."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import PurePath

from shared.base_models import is_path
from shared.ids import PREFIX_BY_JOB_KIND

_FINE_TUNED = re.compile(
    r"ft:(?P<base>.+):(?P<project>[^:]*):(?P<suffix>[^:]*):(?P<key>(?!ckpt-step-)[A-Za-z0-9_-]{1,64})(?::ckpt-step-(?P<step>\d{1,18}))?"
)
_VERSION = re.compile(r"(?P<adapter>[A-Za-z0-9][A-Za-z0-9._-]{0,127})@(?P<number>\d{1,9})")
VERSION_PREFIX = "version-"


@dataclass(frozen=True)
class FineTunedName:
    """`ft:<base>:<project>:<suffix>:<key>`, and `:ckpt-step-<step>` behind it for a checkpoint.

    `key` is the training job's id without its prefix; of a version that no job made, its own id without prefix.
    """

    base_model: str
    project: str
    suffix: str
    key: str
    step: int | None = None

    def __str__(self) -> str:
        name = f"ft:{self.base_model}:{self.project}:{self.suffix}:{self.key}"
        return name if self.step is None else f"{name}:ckpt-step-{self.step}"

    @property
    def job_id(self) -> str:
        return PREFIX_BY_JOB_KIND["training"] + self.key

    @property
    def version_id(self) -> str:
        return VERSION_PREFIX + self.key

    @classmethod
    def of_job(cls, base_model: str, project: str, suffix: str, job_id: str, step: int | None = None) -> FineTunedName:
        """The name of what a training job makes. A local base model is named by its folder: where that lies is nobody's
        business."""
        return cls(_shown(base_model), project, suffix, job_id.removeprefix(PREFIX_BY_JOB_KIND["training"]), step)

    @classmethod
    def of_version(
        cls, base_model: str, project: str, suffix: str, version_id: str, job_id: str | None
    ) -> FineTunedName:
        """The name of a published version."""
        if job_id is not None:
            return cls.of_job(base_model, project, suffix, job_id)
        return cls(_shown(base_model), project, suffix, version_id.removeprefix(VERSION_PREFIX))

    @classmethod
    def parse(cls, name: str) -> FineTunedName | None:
        """None if it is no such name. The base model's own name may hold colons."""
        found = _FINE_TUNED.fullmatch(name)
        if found is None:
            return None
        step = None if found["step"] is None else int(found["step"])
        return cls(found["base"], found["project"], found["suffix"], found["key"], step)


def _shown(base_model: str) -> str:
    return PurePath(base_model).name if is_path(base_model) else base_model


def parse_version(name: str) -> tuple[str, int] | None:
    """`adapter@number`; None if it is no such name."""
    found = _VERSION.fullmatch(name)
    return None if found is None else (found["adapter"], int(found["number"]))
