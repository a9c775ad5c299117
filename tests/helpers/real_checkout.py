"""A checkout of its own for a test: the real notebooks and workflow, with results that do not touch the repository."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class RealCheckout:
    """``root`` holds links to the repository's notebooks and workflow, and params/ and work/ of its own."""

    root: Path

    @classmethod
    def make(cls, root: Path) -> "RealCheckout":
        """Create the folder."""
        (root / "params").mkdir(parents=True)
        for name in ("notebooks", "workflow", "pyproject.toml"):
            (root / name).symlink_to(REPOSITORY / name)
        return cls(root)

    def write_params(self, content: dict[str, Any]) -> Path:
        """Write ``params/<study>.yaml``."""
        path = self.root / "params" / f"{content['study']}.yaml"
        path.write_text(yaml.safe_dump(content, sort_keys=False))
        return path

    def run(self, *arguments: str, limit_s: int = 1200) -> subprocess.CompletedProcess[str]:
        """Run ``brainmets`` in the checkout."""
        return subprocess.run(
            [sys.executable, "-m", "brainmets.cli", *arguments],
            cwd=self.root,
            env={**os.environ, "BRAINMETS_ROOT": str(self.root)},
            capture_output=True,
            text=True,
            timeout=limit_s,
        )


def profile(name: str) -> dict[str, Any]:
    """The content of one of the repository's parameter files."""
    return yaml.safe_load((REPOSITORY / "params" / f"{name}.yaml").read_text())
