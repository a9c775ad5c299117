"""Nothing of the machine or its user in what is handed on: paths and names are replaced, and what is left is found.

Executed notebooks print paths (a warning, a traceback, a file's location). Before a page is made from one, its text
passes through a ``Redactor``; a finished page is searched once more by ``leaks``.
"""

from __future__ import annotations

import getpass
import re
import socket
import sys
import tempfile
from collections.abc import Mapping
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
    """Replaces known folders by words, other absolute paths by their last part, and further names as given.

    ``folders`` maps absolute folders to what to print for them; the environment and the temporary
    folder are added. ``names`` maps further texts (case names to pseudonyms); longer ones are replaced first.
    """

    def __init__(self, folders: Mapping[Path, str], names: Mapping[str, str]) -> None:
        known = {Path(sys.prefix): "(environment)", Path(tempfile.gettempdir()): "(temporary)"}
        known |= {path.absolute(): word for path, word in folders.items()}
        known = {path: word for path, word in known.items() if len(path.parts) > 1}
        self._folders = sorted(((str(path), word) for path, word in known.items()), key=lambda pair: -len(pair[0]))
        self._names = sorted(names.items(), key=lambda pair: -len(pair[0]))

    def __call__(self, text: str) -> str:
        """The text without them."""
        for folder, word in self._folders:
            inside = f"{word}/" if word else ""
            text = re.sub(rf"(?<![\w.]){re.escape(folder)}/", inside, text)
            text = re.sub(rf"(?<![\w.]){re.escape(folder)}(?![\w-])", word or ".", text)
        text = _PATH.sub(lambda found: ".../" + found.group().rstrip("/").rsplit("/", 1)[-1], text)
        for name in private_names():
            text = re.sub(rf"\b{re.escape(name)}\b", "(withheld)", text)
        for name, word in self._names:
            text = re.sub(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", word, text)
        return text


def private_names() -> list[str]:
    """The user's and the machine's name, where they are names and not everyday words."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = ""
    found = {user, socket.gethostname(), socket.gethostname().split(".")[0]}
    return sorted(name for name in found if len(name) >= 4 and name.lower() not in _COMMON_NAMES)


def leaks(html: str, names: Mapping[str, str] | None = None) -> list[str]:
    """What a page still reveals: absolute paths, the user's or machine's name, and every key of ``names``.

    Style sheets and embedded pictures are not searched. Sorted, each once.
    """
    text = _DATA.sub("", _STYLE.sub("", html))
    found = {match.group() for match in _PATH.finditer(text)}
    for name in [*private_names(), *(names or {})]:
        if re.search(rf"(?<![A-Za-z0-9]){re.escape(name)}(?![A-Za-z0-9])", text):
            found.add(name)
    return sorted(found)
