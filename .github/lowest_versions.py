"""Print the lower bound of every dependency in pyproject.toml as a constraint for pip: ``name==version``.

``make test PIP_CONSTRAINT=lowest.txt`` then tests the oldest versions that the package claims to work with.
"""

import re
import sys
import tomllib
from pathlib import Path

BOUND = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[.*\])?>=(?P<version>[0-9.]+)")


def lowest_versions(pyproject: Path) -> list[str]:
    """Constraints of the required dependencies and of the extras ``dev`` and ``reports``, one per package.

    Raises:
        SystemExit: a dependency has no lower bound.
    """
    project = tomllib.loads(pyproject.read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    versions = {}
    for requirement in [*project["dependencies"], *extras["dev"], *extras["reports"]]:
        match = BOUND.fullmatch(requirement)
        if match is None:
            sys.exit(f"{requirement!r} in {pyproject} has no lower bound; write NAME>=VERSION")
        versions[match["name"]] = match["version"]
    return [f"{name}=={version}" for name, version in sorted(versions.items())]


if __name__ == "__main__":
    print("\n".join(lowest_versions(Path(__file__).parent.parent / "pyproject.toml")))
