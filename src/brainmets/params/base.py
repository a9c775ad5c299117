"""The base of every parameter model, and what is said of a parameter that is unknown, missing or wrong."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn, Self

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, field_validator

LONGEST = 80
"""Characters of a value that a message repeats."""
PHRASES = {
    "model_type": "must hold names and values",
    "dict_type": "must hold names and values",
    "list_type": "must be a list",
    "string_type": "must be text; write it in quotes",
}
"""Our words where pydantic's name Python's types."""


class ParameterError(ValueError):
    """A parameter that is unknown, missing or wrong; the message names each one.

    ``problems`` are the message's parts where it has several: one line each, which starts with a parameter's name.
    """

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.problems = tuple(problems) or (message,)


class Parameters(BaseModel):
    """Frozen, complete, and closed to unknown names."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            refuse(type(self), error)

    @classmethod
    def from_cell(cls, names: Mapping[str, Any]) -> Self:
        """The parameters among a notebook's names: ``p = Audit.from_cell(globals())`` below the parameters cell.

        Raises ``ParameterError`` as the constructor does, a name that is not there included.
        """
        return cls(**{name: names[name] for name in cls.model_fields if name in names})

    @field_validator("*", mode="before")
    @classmethod
    def _a_whole_number_is_one(cls, value: Any, field: ValidationInfo) -> Any:
        """Pydantic takes "2" for 2 and true for 1, yet a study's other readers of the YAML do not."""
        if cls.model_fields[str(field.field_name)].annotation is int:
            if isinstance(value, bool):
                raise ValueError(f"{str(value).lower()} must be a whole number")
            if isinstance(value, str) and re.fullmatch(r"\s*[+-]?\d+\s*", value):
                raise ValueError(f"{value!r} is text; write the number without quotes")
        return value


def refuse(model: type[BaseModel], error: ValidationError) -> NoReturn:
    """Turn pydantic's report into one line per parameter, with the closest known name for an unknown one."""
    problems = error.errors()
    stray = [str(problem["loc"][-1]) for problem in problems if problem["type"] == "extra_forbidden"]
    lines: list[str] = []
    for problem in problems:
        name = ".".join(str(part) for part in problem["loc"] if part != "[key]")
        inner = problem.get("ctx", {}).get("error")
        if isinstance(inner, ParameterError):  # of a model within the model
            lines += [f"{name}.{line}" if name else line for line in inner.problems]
        elif problem["type"] == "extra_forbidden":
            lines.append(f"{name}: unknown parameter{closest(str(problem['loc'][-1]), list(model.model_fields))}")
        elif problem["type"] == "missing":
            lines.append(f"{name}: missing{meant_for(name, stray)}")
        elif problem["type"] == "value_error":  # our own, which tells the value
            message = problem["msg"].removeprefix("Value error, ")
            lines.append(f"{name}: {message}" if name else message)
        else:
            lines.append(f"{name}: {PHRASES.get(problem['type'], problem['msg'])}{given(problem['input'])}")
    raise ParameterError("; ".join(lines), lines) from None


def given(value: Any) -> str:
    """``" (given: 3)"``; nothing for a value that holds others and would fill the message."""
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(one, dict | list) for one in value)):
        return ""
    text = "nothing" if value is None else repr(value)
    return f" (given: {text if len(text) <= LONGEST else text[: LONGEST - 3] + '...'})"


def closest(name: str, known: list[str]) -> str:
    """``"; did you mean 'epochs'?"`` for the closest known name, or the list of names where none is close."""
    found = difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {found[0]!r}?" if found else f"; known are {', '.join(sorted(known))}"


def meant_for(name: str, stray: Iterable[Any]) -> str:
    """``" (is 'epoch' meant for it?)"`` for the unknown name that is closest to the missing ``name``."""
    found = difflib.get_close_matches(name, sorted(map(str, stray)), n=1)
    return f" (is {found[0]!r} meant for it?)" if found else ""
