"""itkwidgets in JupyterLab 4, offline: a prebuilt extension made from the JavaScript that the installed wheel carries.

itkwidgets 0.32.6 brings JavaScript for the classic notebook only; JupyterLab 4 answers "Module itkwidgets ... is not
registered as a widget module". ``install`` wraps that bundle, without node and without network, into
``share/jupyter/labextensions/itkwidgets-lab4`` of the environment. ``python -m brainmets.review.lab_extension``
does it from a shell; ``make lab`` does it before JupyterLab starts.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from importlib import metadata, resources
from importlib.util import find_spec
from pathlib import Path

NAME = "itkwidgets-lab4"
VERSION = "0.32.6"
"""The only release of itkwidgets whose bundle this extension has been tried with."""
ENTRY = "remoteEntry.itkwidgets_lab4.js"


class LabExtensionError(RuntimeError):
    """The extension cannot be made; the message says why."""


def folder(prefix: Path | None = None) -> Path:
    """Where the extension lies in an environment (this one, without ``prefix``)."""
    return (prefix or Path(sys.prefix)) / "share" / "jupyter" / "labextensions" / NAME


def installed(prefix: Path | None = None) -> bool:
    """Whether the extension is there and made by this version of its loader."""
    entry = folder(prefix) / "static" / ENTRY
    return (folder(prefix) / "package.json").is_file() and entry.is_file() and entry.read_text() == _loader()


def install(prefix: Path | None = None) -> Path:
    """Make the extension, whole or not at all, and return its folder; an up-to-date one is left as it is.

    Raises ``LabExtensionError`` where itkwidgets is absent, is another version, or carries no bundle.
    """
    target = folder(prefix)
    if installed(prefix):
        return target
    bundle = _bundle()
    partial = target.with_name(f".{NAME}.partial")
    static = partial / "static"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.copytree(bundle.parent / "itk", static / "nbextensions" / "itkwidgets" / "itk")
    code = re.sub(r"\n?//# sourceMappingURL=\S*\s*\Z", "", bundle.read_text(encoding="utf-8"))
    wrapped = f"window.__itkwidgets_amd=function(define){{{code}\n}};"
    (static / "itkwidgets_amd.js").write_text(wrapped, encoding="utf-8")
    (static / ENTRY).write_text(_loader(), encoding="utf-8")
    build = {"load": f"static/{ENTRY}", "extension": "./extension"}
    package = {"name": NAME, "version": VERSION, "jupyterlab": {"extension": True, "_build": build}}
    (partial / "package.json").write_text(json.dumps(package, indent=2), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    return partial.rename(target)


def _loader() -> str:
    return (resources.files("brainmets.review") / "itkwidgets_lab4.js").read_text(encoding="utf-8")


def _bundle() -> Path:
    """The classic notebook's JavaScript within the installed package."""
    spec = find_spec("itkwidgets")
    if spec is None or spec.origin is None:
        raise LabExtensionError(f"itkwidgets is not installed in this environment: install itkwidgets=={VERSION}")
    if (version := metadata.version("itkwidgets")) != VERSION:
        raise LabExtensionError(f"itkwidgets is {version}; this extension is made for {VERSION}: install that release")
    bundle = Path(spec.origin).parent / "static" / "index.js"
    if not bundle.is_file():
        raise LabExtensionError(
            f"itkwidgets {VERSION} is installed without its JavaScript ({bundle.name}); reinstall it"
        )
    return bundle


if __name__ == "__main__":
    print(f"JupyterLab extension: {install().name}")
