"""The reference of the error codes: what each means, what brings it about, and what helps."""

from __future__ import annotations

from collections.abc import Iterator

from docs.generate.causes import CAUSES
from docs.generate.markdown import code, table
from shared.errors import FinetunedError

_INTRODUCTION = """# Error codes

An error is `{"error": code, "detail": sentence}`, and under `/v1` OpenAI's
`{"error": {"message", "type", "param", "code"}}`. A job that failed carries the same code and sentence, and the command
prints the sentence and exits with 1. Programs look at the code, which never changes; the sentence may say more than the
one below, where more is known. The status is that of the HTTP answer. Under `/v1`, what is 413, 415 or 422 here is 400.

Codes whose answers carry `Retry-After` are worth sending again: 429 and 503. No answer holds a path, a secret or a
trace; every one has an `x-request-id`, by which the log finds what happened.
"""


def page() -> str:
    """Every code, by status."""
    parts = [_INTRODUCTION]
    for kind in sorted(kinds(), key=lambda one: (one.status, one.code)):
        cause, cure = CAUSES[kind.code]
        parts.append(f"## `{kind.code}` {{ #{kind.code} }}\n")
        parts.append(f"**{kind.status}** – {kind.cure}\n")
        parts.append(f"- **Cause**: {cause}\n- **Cure**: {cure}\n")
    overview = [(f"[{code(one.code)}](#{one.code})", one.status) for one in sorted(kinds(), key=lambda one: one.code)]
    return "\n".join([*parts[:1], table(("code", "status"), overview), "", *parts[1:]])


def kinds() -> Iterator[type[FinetunedError]]:
    """Every class of the tree that lives in `shared/errors.py`."""
    pending: list[type[FinetunedError]] = [FinetunedError]
    while pending:
        kind = pending.pop()
        if kind.__module__ == FinetunedError.__module__:
            yield kind
        pending.extend(kind.__subclasses__())
