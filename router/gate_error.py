"""The error of a gate that cannot be used."""


class GateError(ValueError):
    """A gate folder that cannot be used; the message names the file and what is wrong with it."""
