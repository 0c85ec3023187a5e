"""The error that is a message to the user."""


class UserError(Exception):
    """Something only the user can put right; the message says what was asked for and what to do.

    A command prints the message, without a traceback, and exits with code 2.
    """
