"""The one reader of YAML: of a study's file and of a value on the command line.

It takes what a study's file needs and refuses the rest with the line: a name given twice (YAML itself takes the last
and says nothing), a name that is no plain text, nesting and aliases that stand for more than any study holds, and
numbers that YAML 1.1 reads otherwise than they look (010 is 8 to it, 1:30 is 90, and 1e-3 is a text; here 1e-3 is the
number). Anchors, aliases and merged mappings (``<<``) within these limits work.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from brainmets.params.bounds import shown
from brainmets.params.models import ParameterError

MOST_BYTES = 1_000_000
"""Of a file; a study that lists 10,000 cases by name has a third of it."""
MOST_VALUES = 100_000
"""Of a file, those that its aliases stand for counted each time."""
DEEPEST = 30
"""Levels of nesting; a study has five."""
LONGEST_NUMBER = 30
"""Characters of a number; no limit of a parameter needs half of them."""


def read_yaml(path: Path) -> Any:
    """What a YAML file holds. Raises ``ParameterError`` with the file, the line and what is wrong."""
    size = path.stat().st_size
    if size > MOST_BYTES:
        raise ParameterError(f"{path}: {size:,} bytes are no study's file (at most {MOST_BYTES:,})")
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Reader)
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ParameterError(f"{path}, line {line}: a letter is not in UTF-8; save the file as UTF-8") from None
    except yaml.YAMLError as error:
        raise ParameterError(_in_words(str(path), error)) from None


def parse_value(text: str, name: str) -> Any:
    """The value of ``name=text`` on a command line. Raises ``ParameterError`` that names it."""
    if len(text) > MOST_BYTES:
        raise ParameterError(f"{name}: {len(text):,} characters are no parameter's value (at most {MOST_BYTES:,})")
    try:
        return yaml.load(text, Loader=_Reader)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None) or str(error).partition("\n")[0]
        raise ParameterError(
            f"{name}={shown(text)[1:-1]} cannot be read: {problem}; write the value as in the study's file"
        ) from None


class _Reader(yaml.SafeLoader):
    """PyYAML's safe loader with the limits of this module, checked while the file is read."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = self._values = 0
        self._sizes: dict[int, int] = {}  # of each finished node, what it holds counted each time

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        """One node; ``yaml.MarkedYAMLError`` where it is too deep, or the file stands for too much."""
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            node = super().compose_node(parent, index)
            if id(node) not in self._sizes:
                raise yaml.MarkedYAMLError(problem="an alias stands within what it is the alias of", problem_mark=mark)
            self._count(self._sizes[id(node)], mark)
            return node
        if self._depth == DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"nested more than {DEEPEST} levels deep", problem_mark=mark)
        self._depth += 1
        before = self._values
        self._count(1, mark)
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._sizes[id(node)] = self._values - before
        return node

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        """A mapping; ``yaml.MarkedYAMLError`` at a name that is no scalar, and at the second of two equal ones."""
        node: yaml.MappingNode = super().compose_mapping_node(anchor)
        lines: dict[tuple[str, str], int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="a name must be plain text", problem_mark=key.start_mark)
            name = (str(key.tag), str(key.value))
            if name in lines:
                problem = f"{shown(key.value)[1:-1]} is given twice (before in line {lines[name]}); keep one"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=key.start_mark)
            lines[name] = key.start_mark.line + 1
        return node

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """The value of a node; ``yaml.MarkedYAMLError`` for one that its type cannot have."""
        kind = str(node.tag).removeprefix("tag:yaml.org,2002:")
        if isinstance(node, yaml.ScalarNode) and kind in ("int", "float"):
            plain = re.fullmatch(r"[-+]?(0|[1-9][0-9]*)", node.value) or (kind == "float" and ":" not in node.value)
            if len(node.value) > LONGEST_NUMBER or not plain:
                problem = f"{shown(node.value)[1:-1]} is not written as a plain number; give a name in quotes"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark)
        try:
            return super().construct_object(node, deep)
        except (ValueError, TypeError, AttributeError, LookupError, OverflowError):  # as PyYAML's constructors do
            problem = f"{shown(node.value)[1:-1]} cannot be read as {kind}; give text in quotes"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=node.start_mark) from None

    def _count(self, values: int, mark: yaml.Mark) -> None:
        self._values += values
        if self._values > MOST_VALUES:
            problem = f"with its aliases the file stands for more than {MOST_VALUES:,} values"
            raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark)


_Reader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?[0-9]+[eE][-+]?[0-9]+"), list("-+0123456789")
)


def _in_words(where: str, error: yaml.YAMLError) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    if mark is None or problem is None:
        return f"{where} is not YAML: {error}"
    place, context = f"{where}, line {mark.line + 1}", getattr(error, "context", None)
    return f"{place}: this is not YAML: {problem}" if context or _of_the_scanner(error) else f"{place}: {problem}"


def _of_the_scanner(error: yaml.YAMLError) -> bool:
    return isinstance(error, yaml.scanner.ScannerError | yaml.parser.ParserError)
