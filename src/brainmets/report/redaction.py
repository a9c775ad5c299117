"""Nothing of the machine or its user in what is handed on: paths and names are replaced, and what is left is found.

Executed notebooks print paths (a warning, a traceback, a file's location). Before a page is made from one, its text
passes through a ``Redactor``; a finished page is searched once more by ``leaks``. Names of cases are not looked for: a
cohort that asks for pseudonyms has no other names from where its cases are found (``brainmets.cohorts.pseudonyms``).
"""

from __future__ import annotations

import getpass
import re
import socket
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path

_PATH = re.compile(r"file:///[^\s\"'<>]+|(?<![\w.~:/<)\]}*-])/(?:[\w.@+~=-]+/)+[\w.@+~=-]*")
"""An absolute path of two parts or more; not the tail of a relative path, a URL or a closing tag."""
_DATA = re.compile(
    r"""data:[\w.+/-]+;base64,[A-Za-z0-9+/=\s]+|<script type="application/gzip;base64".*?</script>""", re.DOTALL
)
_STYLE = re.compile(r"<style.*?</style>", re.DOTALL)
_COMMON_NAMES = {
    "root", "user", "users", "admin", "ubuntu", "debian", "centos", "docker", "jovyan", "runner", "vagrant", "guest",
    "localhost", "default", "demo", "smoke", "paper", "brain", "brainmets", "work", "test", "python", "jupyter",
}  # fmt: skip
"""Names of users and machines that say nothing about anyone, or that are words of a report."""


class Redactor:
    """Replaces known folders by words, other absolute paths by their last part, and names of user and machine.

    ``folders`` maps absolute folders to what to print for them; the environment and the temporary folder are added. Of
    those in ``closed`` nothing below is printed either, however it is called and up to the end of the line or quote.
    """

    def __init__(self, folders: Mapping[Path, str], closed: Iterable[Path] = ()) -> None:
        known = {Path(sys.prefix): "(environment)", Path(tempfile.gettempdir()): "(temporary)"}
        known |= {path.absolute(): word for path, word in folders.items()}
        known = {path: word for path, word in known.items() if len(path.parts) > 1}
        self._folders = sorted(((str(path), word) for path, word in known.items()), key=lambda pair: -len(pair[0]))
        self._closed = sorted((re.escape(str(path)) for path in closed), key=len, reverse=True)

    def __call__(self, text: str) -> str:
        """The text without them."""
        for folder in self._closed:
            text = re.sub(rf"(?<![\w./-])({folder})/[^\"'<>\n]*", r"\1", text)
        for folder, word in self._folders:
            inside = f"{word}/" if word else ""
            text = re.sub(rf"(?<![\w.]){re.escape(folder)}/", inside, text)
            text = re.sub(rf"(?<![\w.]){re.escape(folder)}(?![\w-])", word or ".", text)
        text = _PATH.sub(lambda found: ".../" + found.group().rstrip("/").rsplit("/", 1)[-1], text)
        for name in private_names():
            text = re.sub(rf"\b{re.escape(name)}\b", "(withheld)", text)
        return text


def private_names() -> list[str]:
    """The user's and the machine's name, where they are names and not everyday words."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""
    found = {user, socket.gethostname(), socket.gethostname().split(".")[0]}
    return sorted(name for name in found if len(name) >= 4 and name.lower() not in _COMMON_NAMES)


def leaks(html: str) -> list[str]:
    """What a page still reveals: absolute paths, and the user's or machine's name.

    Style sheets and embedded pictures are not searched. Sorted, each once.
    """
    text = _DATA.sub("", _STYLE.sub("", html))
    found = {match.group() for match in _PATH.finditer(text)}
    for name in private_names():
        if re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", text):
            found.add(name)
    return sorted(found)
