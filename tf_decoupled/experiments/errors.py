"""What the command line reports to its user instead of a traceback."""


class InputError(ValueError):
    """Something the user gave is wrong: the command line prints this one line and exits with 2."""
