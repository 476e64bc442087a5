"""The one error that a person who configures the server can meet.

Whatever is wrong with an option, a file or an address ends as a `ConfigError`, and `cli` prints it as one line.
Errors that bytes from the network cause have their own classes beside the code that reads those bytes.
"""


class ConfigError(Exception):
    """A configuration that cannot be served: which option, which value, why, and where it was written."""

    def __init__(self, option: str, value: str, cause: str, where: str = "") -> None:
        super().__init__(option, value, cause, where)
        self.option = option
        self.value = value
        self.cause = cause
        self.where = where

    def __str__(self) -> str:
        place = f" ({self.where})" if self.where else ""
        text = f"{self.option} = {self.value}: {self.cause}{place}"
        # A value from a file may hold anything; the message stays one line whatever it is.
        return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
