"""The one exception that this library raises for input it cannot use."""


class InputError(ValueError):
    """The caller's input is wrong. The message is one line: what was got, what was wanted, how to mend it.

    The command line prints that line and exits with code 2; any other exception is a defect and keeps its traceback.
    """
