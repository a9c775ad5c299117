"""A case in 3D in the report: a page that opens from a file, with no kernel and no network.

NiiVue draws it. Its JavaScript is taken from the installed ipyniivue wheel and written once, beside the pages; each
page carries its own volumes. A page says so where scripts or WebGL are missing, and leads back to the pictures.
"""

from __future__ import annotations

import base64
import re
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

SCRIPT = "niivue.js"


class ViewerError(RuntimeError):
    """The viewer's script cannot be had; the message says why."""


@lru_cache(maxsize=1)
def script() -> str:
    """NiiVue as a classic script that sets ``window.Niivue``.

    A module cannot be loaded from a file; the bundle's last statement, its export, gives way to an assignment. Raises
    ``ViewerError`` where ipyniivue is absent or its bundle has another shape.
    """
    spec = find_spec("ipyniivue")
    if spec is None or spec.origin is None:
        raise ViewerError("ipyniivue is not installed")
    bundle = (Path(spec.origin).parent / "static" / "widget.js").read_text(encoding="utf-8")
    made = re.search(r'"Creating new Niivue instance"\);let [^;]*?;[\w$]+=new ([\w$]+)\(', bundle)
    body, export, rest = bundle.rstrip().rpartition("export{")
    if made is None or not export or not re.fullmatch(r"[\w$]+ as default\};?", rest):
        raise ViewerError("the bundle of this ipyniivue has another shape than the one this page was made for (2.4.4)")
    return f"(function(){{var define,module,exports;{body}window.Niivue={made.group(1)};}})();"


def encoded(path: Path) -> str:
    """A file's bytes in base64."""
    return base64.b64encode(path.read_bytes()).decode("ascii")
