"""Code inside data: what runs is seen afterwards."""

from typing import Any

RAN: list[str] = []


def run(words: str) -> None:
    RAN.append(words)


class Payload:
    """Runs ``run`` in the process that unpickles it."""

    def __reduce__(self) -> Any:
        return run, ("a pickle",)


def payload_ran() -> bool:
    """Whether a planted piece of code ran in this process; forgets it."""
    ran = bool(RAN)
    RAN.clear()
    return ran


def as_blosc2_function(inputs: Any, output: Any, offset: Any) -> None:
    """A function that Blosc2 keeps, as text, in an array's file."""
    output[:] = inputs[0]
