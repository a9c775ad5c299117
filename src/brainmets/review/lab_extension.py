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
    bundle = _wheel() / "index.js"
    if not bundle.is_file():
        raise LabExtensionError(
            f"itkwidgets {VERSION} is installed without its JavaScript ({bundle.name}); reinstall it"
        )
    aside = target.with_name(f".{NAME}.partial")
    shutil.rmtree(aside, ignore_errors=True)
    static = aside / "static"
    static.mkdir(parents=True)
    code = re.sub(r"\n?//# sourceMappingURL=\S*\s*\Z", "", bundle.read_text(encoding="utf-8"))
    (static / "itkwidgets_amd.js").write_text(
        f"window.__itkwidgets_amd=function(define){{{code}\n}};", encoding="utf-8"
    )
    shutil.copytree(bundle.parent / "itk", static / "nbextensions" / "itkwidgets" / "itk")
    (static / ENTRY).write_text(_loader(), encoding="utf-8")
    load = {"load": f"static/{ENTRY}", "extension": "./extension"}
    package = {"name": NAME, "version": VERSION, "jupyterlab": {"extension": True, "_build": load}}
    (aside / "package.json").write_text(json.dumps(package, indent=2), encoding="utf-8")
    shutil.rmtree(target, ignore_errors=True)
    return aside.rename(target)


def _loader() -> str:
    return (resources.files("brainmets.review") / "itkwidgets_lab4.js").read_text(encoding="utf-8")


def _wheel() -> Path:
    try:
        version = metadata.version("itkwidgets")
    except metadata.PackageNotFoundError:
        raise LabExtensionError("itkwidgets is not installed in this environment") from None
    if version != VERSION:
        raise LabExtensionError(f"itkwidgets is {version}; this extension is made for {VERSION}")
    spec = find_spec("itkwidgets")
    if spec is None or spec.origin is None:
        raise LabExtensionError("itkwidgets is installed but cannot be found")
    return Path(spec.origin).parent / "static"


if __name__ == "__main__":
    print(f"JupyterLab extension: {install().name}")
