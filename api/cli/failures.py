"""How a command ends when it cannot do what was asked: one line, one exit code, no stack trace."""

from __future__ import annotations

from domain import errors

FAILED = 1
"""The input was fine, the work was not done."""
BAD_INPUT = 2
"""The person who typed it has to change something."""

_NOT_THE_INPUTS_FAULT = (errors.Unauthenticated, errors.Forbidden, errors.Conflict, errors.PreconditionFailed)


class CommandFailed(Exception):
    """Ends the command with ``error: <message>`` on stderr and *exit_code*."""

    def __init__(self, message: str, *, exit_code: int = FAILED) -> None:
        super().__init__(message)
        self.message = message
        self.exit_code = exit_code


def bad_input(message: str) -> CommandFailed:
    """A failure that the person at the keyboard can mend by typing something else."""
    return CommandFailed(message, exit_code=BAD_INPUT)


def from_domain(error: errors.ConsiliumError) -> CommandFailed:
    """One of the service's own errors, raised in this process, as the command's end."""
    is_input = isinstance(error, errors.RequestError) and not isinstance(error, _NOT_THE_INPUTS_FAULT)
    return CommandFailed(error.message, exit_code=BAD_INPUT if is_input else FAILED)


def from_status(status: int, message: str) -> CommandFailed:
    """An HTTP error answer as the command's end."""
    is_input = 400 <= status < 500 and status not in {401, 403, 409, 412, 429}
    return CommandFailed(message, exit_code=BAD_INPUT if is_input else FAILED)
