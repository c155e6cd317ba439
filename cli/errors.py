"""What the command can fail with; each shows as one sentence and its exit code.

FinetunedError
└── CommandError
    ├── ServiceUnreachable   no answer from FINETUNED_URL (exit code 3; all others 1)
    ├── RequestRefused       the API answered with an error; its sentence is ours
    ├── JobEndedBadly        the followed job failed or was cancelled
    ├── StackRunning         another stack holds the data folder
    ├── PortUnusable         the port is taken or not ours to take
    ├── StackFailed          a part does not stay up
    ├── StackStopped         a stop was asked for before the work was done
    └── DemoFailed           the demo ran, and its figures are not what they must be
"""

from __future__ import annotations

from typing import ClassVar, Final

from shared.errors import FinetunedError

FAILED: Final = 1
UNREACHABLE: Final = 3
INTERRUPTED: Final = 130  # what a shell gives for Ctrl-C
EXIT_CODES: Final = {
    0: "done",
    FAILED: "refused by the service, or the job that was followed did not succeed; the sentence says why",
    2: "the command was not understood; `--help` shows how it is meant",
    UNREACHABLE: "nothing answers at `FINETUNED_URL`, or the connection broke off",
    INTERRUPTED: "Ctrl-C; jobs go on",
}


class CommandError(FinetunedError):
    code = "command_failed"
    cure = "The command failed."
    exit_code: ClassVar[int] = FAILED


class ServiceUnreachable(CommandError):
    code = "service_unreachable"
    exit_code = UNREACHABLE


class RequestRefused(CommandError):
    code = "request_refused"


class JobEndedBadly(CommandError):
    code = "job_ended_badly"


class StackRunning(CommandError):
    code = "stack_running"


class PortUnusable(CommandError):
    code = "port_unusable"


class StackFailed(CommandError):
    code = "stack_failed"


class StackStopped(CommandError):
    code = "stack_stopped"
    cure = "Stopped before the end."


class DemoFailed(CommandError):
    code = "demo_failed"
