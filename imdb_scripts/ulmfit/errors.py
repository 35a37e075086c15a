"""Errors that are the user's to mend: shown as one line, never as a traceback."""


class UserError(Exception):
    """Something in the data, the files or the machine that the user can mend. The message is one line."""

    exit_code = 1

    def __init__(self, message: str):
        super().__init__(message)
        self.message = message

    def __str__(self) -> str:
        # fastai rewrites the arguments of what passes through its callbacks.
        return self.message


class UsageError(UserError):
    """The command line itself is wrong: unknown flag, impossible value, contradiction."""

    exit_code = 2


class Interrupted(BaseException):
    """A signal asked the run to stop; its checkpoint is on disk.

    `signum` is the signal's number, so that the process can end with the customary 128 + signum. Like
    KeyboardInterrupt no Exception, so that nothing on the way takes it for an error.
    """

    def __init__(self, signum: int):
        super().__init__(f"stopped by signal {signum}")
        self.signum = signum
