"""Errors meant for users, all of them a :class:`ZooError`.

Each error has the builtin of its sort as a second base, so that ``except ValueError`` works as elsewhere. Those that belong
to one part of the zoo are defined there; here are those that several parts raise.
"""

_VERBS = {"is": "are", "has": "have", "lies": "lie"}


class ZooError(Exception):
    """Any error that is meant for a user: the message says what was given, what was expected and what to do.

    Example:
        >>> import zoo
        >>> try:
        ...     zoo.load("no-such-card")
        ... except zoo.ZooError as error:
        ...     print(type(error).__name__)
        CardError
    """


class ZooWarning(UserWarning):
    """Any warning that is meant for a user; the command line prints it as a message."""


def counted(number: int, noun: str, verb: str = "") -> str:
    """A number with its noun, as a message has them: 1 record, 2 records; with a verb, 1 record is, 2 records are.

    Args:
        number: of things.
        noun: for one of them.
        verb: for one of them, "is" or "has"; those for several are known.
    """
    if number == 1:
        return f"1 {noun} {verb}".rstrip()
    plural = f"{noun}{'es' if noun.endswith(('s', 'x')) else 's'}"
    return f"{number:,} {plural} {_VERBS.get(verb, verb)}".rstrip()


class ArgumentError(ZooError, ValueError):
    """An argument that a component or function cannot take."""


class WriteError(ZooError, OSError):
    """A file or folder that cannot be written, as where the disk is full."""


class OutputExistsError(ZooError, FileExistsError):
    """A file that would be overwritten."""


class WeightsError(ZooError, ValueError):
    """Weights that do not fit the model they are meant for."""


class MissingWeightsError(ZooError, FileNotFoundError):
    """Weights that are not here; the message says how to get them."""


class MissingOptimizerError(ZooError, RuntimeError):
    """Training without an optimizer."""


class UnsupportedError(ZooError, NotImplementedError):
    """Something that a method cannot do."""
