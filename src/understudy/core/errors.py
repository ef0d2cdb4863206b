"""What is said to a user whose input cannot be accepted."""

from __future__ import annotations


class UserError(ValueError):
    """Bad input, refused at the edge with one sentence.

    The sentence names the column, row, file or option, says what was found and what is
    accepted. The command line prints it without a traceback and exits with code 2.
    """
