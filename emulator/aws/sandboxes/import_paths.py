"""Where this interpreter's imports come from: what a sandbox must see even if it lies under /tmp."""

import importlib.metadata
import json
import sys
import urllib.parse
from pathlib import Path


def import_paths() -> list[Path]:
    """Return the interpreter's own folders, those on ``sys.path``, and those of projects installed as editable.

    The last are not on ``sys.path`` when their installer has set up an import hook instead; every installer records
    them in ``direct_url.json`` (PEP 610).
    """
    paths = [Path(entry) for entry in (sys.prefix, sys.base_prefix, *sys.path) if entry]
    for distribution in importlib.metadata.distributions():
        record = distribution.read_text("direct_url.json")
        origin = json.loads(record) if record else {}
        if origin.get("dir_info", {}).get("editable"):
            paths.append(Path(urllib.parse.unquote(urllib.parse.urlsplit(origin["url"]).path)))
    return paths
