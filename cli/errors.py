"""What the command can fail with; each shows as one sentence and exit code 1.

FinetunedError
└── CommandError
    ├── ServiceUnreachable   no answer from FINETUNED_URL
    ├── RequestRefused       the API answered with an error; its sentence is ours
    ├── JobEndedBadly        the followed job failed or was cancelled
    ├── StackRunning         another stack holds the data folder
    ├── PortUnusable         the port is taken or not ours to take
    ├── StackFailed          a part does not stay up
    ├── StackStopped         a stop was asked for before the work was done
    └── DemoFailed           the demo ran, and its figures are not what they must be
"""

from __future__ import annotations

from shared.errors import FinetunedError


class CommandError(FinetunedError):
    code = "command_failed"
    cure = "The command failed."


class ServiceUnreachable(CommandError):
    code = "service_unreachable"


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
