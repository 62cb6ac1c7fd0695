"""Print the software bill of materials of fastasgi's packages: CycloneDX 1.7, as JSON.

What pip installs beside fastasgi is its user's choice within ranges, so each such component is external and
has a range. What builds the wheels is pinned in requirements/build.txt, so it has a version; it is `excluded`
by its scope, since none of it is installed. The packages hold no code of others but what Cython generates.

`make sbom` writes it to build/sbom.cdx.json, and the workflow release.yml attaches it to the release.
SOURCE_DATE_EPOCH is its time, if that is set. Needs `packaging`.
"""

import ast
import datetime
import json
import os
import re
import tomllib
import uuid
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
# The extras that add to what the server can do; the others are for its development
USERS_EXTRAS = ("metrics", "reload", "wsgi")

Component = dict[str, Any]


def vers(requirement: Requirement) -> str:
    """The range, as a vers URI: vers:pypi/>=1|<2."""
    bounds = sorted(str(specifier) for specifier in requirement.specifier)
    if any(re.match("~=|===|.*\\*", bound) for bound in bounds):
        raise SystemExit(f"a vers range can't say {requirement}: use >= and <")
    return "vers:pypi/" + ("|".join(bound.removeprefix("==") for bound in bounds) or "*")


def external(text: str, scope: str, extra: str | None = None) -> Component:
    """What pip installs with fastasgi, in a version of its choice."""
    requirement = Requirement(text)
    name = canonicalize_name(requirement.name)
    properties = []
    if requirement.marker:
        properties.append({"name": "fastasgi:marker", "value": str(requirement.marker)})
    if extra:
        properties.append({"name": "fastasgi:extra", "value": extra})
    return {
        "type": "library",
        "bom-ref": name,
        "name": name,
        "versionRange": vers(requirement),
        "isExternal": True,
        "scope": scope,
        "purl": f"pkg:pypi/{name}",
        **({"properties": properties} if properties else {}),
    }


def builder(text: str, pins: str) -> Component:
    """What builds the wheels, in the pinned version."""
    name = canonicalize_name(Requirement(text).name)
    pinned = re.search(rf"^{re.escape(name)}==(\S+)", pins, re.MULTILINE)
    if pinned is None:
        raise SystemExit(f"requirements/build.txt has no {name}: make requirements")
    return {
        "type": "library",
        "bom-ref": name,
        "name": name,
        "version": pinned[1],
        "scope": "excluded",
        "purl": f"pkg:pypi/{name}@{pinned[1]}",
    }


def components(settings: dict[str, Any], pins: str) -> list[Component]:
    """All that is required to build or to run fastasgi."""
    project = settings["project"]
    return [
        *(external(text, "required") for text in project["dependencies"]),
        *(
            external(text, "optional", extra)
            for extra in USERS_EXTRAS
            for text in project["optional-dependencies"][extra]
        ),
        *(builder(text, pins) for text in settings["build-system"]["requires"]),
    ]


def own_version() -> str:
    """`fastasgi.__version__`, without importing it."""
    found = re.search(r"^__version__ = (.+)$", (ROOT / "fastasgi/__init__.py").read_text(), re.MULTILINE)
    assert found is not None
    return str(ast.literal_eval(found[1]))


def own_component(settings: dict[str, Any]) -> Component:
    """fastasgi itself."""
    project, version = settings["project"], own_version()
    kinds = {"Homepage": "vcs", "Documentation": "documentation", "Issues": "issue-tracker"}
    urls = project.get("urls", {})
    return {
        "type": "application",
        "bom-ref": "fastasgi",
        "name": "fastasgi",
        "version": version,
        "description": project["description"],
        "licenses": [{"license": {"id": project["license"]}}],
        "purl": f"pkg:pypi/fastasgi@{version}",
        "externalReferences": [
            {"type": kind, "url": urls[name]} for name, kind in kinds.items() if name in urls
        ],
    }


def bill() -> dict[str, Any]:
    """The whole document; its serial number follows from what it says."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    parts = components(settings, (ROOT / "requirements/build.txt").read_text())
    own = own_component(settings)
    epoch = os.environ.get("SOURCE_DATE_EPOCH")
    now = (
        datetime.datetime.fromtimestamp(int(epoch), datetime.UTC)
        if epoch
        else datetime.datetime.now(datetime.UTC)
    )
    others = [part["bom-ref"] for part in parts]
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.7.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.7",
        "version": 1,
        "metadata": {
            "timestamp": now.isoformat(timespec="seconds"),
            "lifecycles": [{"phase": "build"}],
            "component": own,
        },
        "components": parts,
        "dependencies": [{"ref": "fastasgi", "dependsOn": others}],
        # Ours are all here; what those depend on is not
        "compositions": [
            {"aggregate": "complete", "dependencies": ["fastasgi"]},
            {"aggregate": "unknown", "dependencies": others},
        ],
    }
    serial = uuid.uuid5(uuid.NAMESPACE_URL, own["purl"] + json.dumps(document, sort_keys=True))
    return {"serialNumber": f"urn:uuid:{serial}", **document}


if __name__ == "__main__":
    print(json.dumps(bill(), indent=2))
