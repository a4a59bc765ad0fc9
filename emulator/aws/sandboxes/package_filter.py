"""Which packages a function may import: those of AWS's runtime and its own, so that a forgotten one shows here."""

import importlib.metadata
import re
import sys
import sysconfig
from collections.abc import Collection, Iterable, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

# boto3 with what it needs, and AWS's runtime client with what it needs; then the layer of this emulator.
# https://docs.aws.amazon.com/lambda/latest/dg/python-package.html
RUNTIME_PACKAGES = (
    *("awslambdaric", "boto3", "botocore", "dateutil", "jmespath", "s3transfer", "simplejson", "six"),
    *("snapshot_restore_py", "urllib3"),
)
LAYER = ("fmi", "fmi_shim", "numpy", "rendezvous")
_ALWAYS = ("emulator", *RUNTIME_PACKAGES, *LAYER)
_STANDARD_LIBRARY = frozenset(sysconfig.get_paths()[kind] for kind in ("stdlib", "platstdlib"))
_NAME = re.compile(r"[A-Za-z0-9._-]+")


class PackageFilter(MetaPathFinder):
    """Hides the packages of the emulator's installation.

    Parameters
    ----------
    packages
        Modules whose distributions, with all that they require, stay visible.
    own
        Folders on ``sys.path`` that are the function's.

    Notes
    -----
    Make it before the function's other folders are on ``sys.path``: what is there then is the installation.
    """

    def __init__(self, packages: Sequence[str], own: Collection[str] = ()) -> None:
        # The standard library has modules that are not in `sys.stdlib_module_names`, one for each platform.
        self._installation = frozenset(sys.path) - frozenset(own) - _STANDARD_LIBRARY
        names = {module.partition(".")[0] for module in packages} - set(_ALWAYS)
        self.packages = tuple(packages)
        self._visible = frozenset((*sys.stdlib_module_names, *_ALWAYS, *_modules_required_by(names)))

    def install(self) -> None:
        """Hide the packages from now on, also those that were imported already."""
        for name in list(sys.modules):
            if name.partition(".")[0] not in self._visible and name != "__main__":
                del sys.modules[name]
        sys.meta_path.insert(0, self)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where the function has a hidden package itself; None for those that are visible.

        Raises
        ------
        ModuleNotFoundError
            When a hidden package is imported that the function does not have.
        """
        if path is not None or fullname.partition(".")[0] in self._visible:
            return None
        own = [folder for folder in sys.path if folder not in self._installation]
        found = PathFinder.find_spec(fullname, own, target)
        if found is None:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)
        return found


def modules_installed() -> set[str]:
    """Return the top-level modules of all distributions of this interpreter."""
    return set(importlib.metadata.packages_distributions())


def _modules_required_by(names: Collection[str]) -> set[str]:
    """Return the top-level modules of the distributions that have the given ones, and of all that these require."""
    if not names:
        return set()
    distributions = importlib.metadata.packages_distributions()
    found: set[str] = set()
    waiting = [distribution for name in names for distribution in distributions.get(name, ())]
    while waiting:
        name = normalised_name(waiting.pop())
        if name in found:
            continue
        found.add(name)
        waiting += _requirements(name)
    modules = {
        module for module, owners in distributions.items() if any(normalised_name(owner) in found for owner in owners)
    }
    return modules | set(names)


def _requirements(distribution: str) -> Iterable[str]:
    try:
        required = importlib.metadata.requires(distribution) or ()
    except importlib.metadata.PackageNotFoundError:
        return
    for requirement in required:
        # What only an extra requires is not needed.
        if "extra ==" not in requirement and (match := _NAME.match(requirement)) is not None:
            yield match[0]


def normalised_name(name: str) -> str:
    """Return a distribution's name as names are compared.

    https://packaging.python.org/en/latest/specifications/name-normalization/
    """
    return re.sub(r"[-_.]+", "-", name).lower()
