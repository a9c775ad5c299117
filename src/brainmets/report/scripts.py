"""The two scripts of a report: NiiVue draws the cases in 3D, DataTables searches and sorts long tables.

Both come from the JavaScript that installed wheels carry (ipyniivue, itables); nothing is downloaded. A page opened
from a file cannot load a module, so each bundle becomes a classic script: its last statement, the export, gives way to
an assignment to ``window``.
"""

from __future__ import annotations

import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

BUNDLES = {
    "Niivue": (
        "ipyniivue", "2.4.4", "static/widget.js",
        r'"Creating new Niivue instance"\);let [^;]*?;[\w$]+=new (?P<name>[\w$]+)\(',
    ),
    "DataTable": ("itables", "2.9.1", "html/dt_bundle.js", r"\bexport\{[^}]*?\b(?P<name>[\w$]+) as default\b"),
}  # fmt: skip
"""For the name that a script gives to ``window``: package, the version tried, file, and what finds its inner name."""
_EXPORT = r"(?:[\w$]+ as [\w$]+,?)+\};?\s*(?P<licences>(?:/\*.*\*/\s*)?)"


class ScriptError(RuntimeError):
    """A script cannot be made; the message names the package and says why."""


@cache
def script(name: str) -> str:
    """A classic script, with its licences, that sets ``window.Niivue`` or ``window.DataTable``.

    Raises ``ScriptError`` where the package is not installed or its bundle is built in another way.
    """
    package, version, file, pattern = BUNDLES[name]
    spec = find_spec(package)
    if spec is None or spec.origin is None:
        raise ScriptError(f"{package} is not installed")
    bundle = (Path(spec.origin).parent / file).read_text(encoding="utf-8")
    inner = re.search(pattern, bundle)
    body, _, export = bundle.rpartition("export{")
    rest = re.fullmatch(_EXPORT, export, re.DOTALL)
    if inner is None or not body or rest is None:
        raise ScriptError(f"the bundle of this {package} has another shape than that of {version}; install {version}")
    shadows = "var define,module,exports,require;"  # a page's module loader must not capture the bundle
    return f"{rest['licences']}(function(){{{shadows}{body}window.{name}={inner['name']};}})();\n"
