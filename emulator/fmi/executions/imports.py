"""Which modules a program imports: those that a stack's functions lack, and those by which ranks talk."""

import ast
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath

# In every Lambda runtime of Python.
_OF_RUNTIME = frozenset(
    ["awslambdaric", "boto3", "botocore", "dateutil", "jmespath", "s3transfer", "six", "urllib3", "snapshot_restore_py"]
)


class ProgramSyntaxError(Exception):
    """A file of the program is not Python of the stack's version."""


def missing_modules(
    files: Mapping[str, bytes], script: str, python: tuple[int, int], available: Collection[str]
) -> list[str]:
    """Return the top-level modules that a program imports when it starts and the functions lack.

    Parameters
    ----------
    files
        The content of the program's files, by path. The first folder of a path is the program's.
    script
        The path of the script.
    python
        Version of Python in the functions.
    available
        The modules of the functions' archive.

    Raises
    ------
    ProgramSyntaxError
        If a file is not valid in that version of Python.
    """
    folder = PurePosixPath(script).parent
    own = {
        PurePosixPath(name).relative_to(folder): name for name in files if PurePosixPath(name).is_relative_to(folder)
    }
    present = set(available) | _OF_RUNTIME | sys.stdlib_module_names
    missing: set[str] = set()
    pending, seen = [script], {script}
    while pending:
        name = pending.pop()
        for module in _imported(files[name], name, python):
            local = _local_files(own, module)
            for found in local - seen:
                seen.add(found)
                pending.append(found)
            top = module.partition(".")[0]
            if not local and top not in present and not _is_local(own, top):
                missing.add(top)
    return sorted(missing)


def first_import(
    files: Mapping[str, bytes], script: str, folder: str, modules: Collection[str]
) -> tuple[str, str] | None:
    """Return a file of a program that imports one of some modules, anywhere in it, and the module; None if none does.

    Only files that the script imports, directly or not, count. They are searched for in the folders of the script up to
    the program's, since programs add these to their path.

    Parameters
    ----------
    files
        The content of the program's files, by path.
    script
        The path of the script.
    folder
        The program's folder.
    modules
        Dotted names; a module counts with all modules in it.
    """
    roots = [parent for parent in PurePosixPath(script).parents if parent.is_relative_to(folder)]
    by_root = [
        {PurePosixPath(name).relative_to(root): name for name in files if PurePosixPath(name).is_relative_to(root)}
        for root in roots
    ]
    pending, seen = [script], {script}
    while pending:
        name = pending.pop()
        for module in _imported_anywhere(files.get(name, b"")):
            if any(module == wanted or module.startswith(f"{wanted}.") for wanted in modules):
                return name, module
            for own in by_root:
                found = _local_files(own, module) - seen
                seen |= found
                pending += sorted(found)
    return None


def _imported_anywhere(content: bytes) -> Iterator[str]:
    """Yield the modules that a file imports or uses as an attribute of an imported one; none of what is not Python."""
    try:
        tree = ast.parse(content)
    except (SyntaxError, ValueError, RecursionError):
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield f"{node.value.id}.{node.attr}"


def _imported(content: bytes, name: str, python: tuple[int, int]) -> Iterator[str]:
    """Yield the modules that a file imports unconditionally: not in a function, a condition or a try block."""
    try:
        tree = ast.parse(content, filename=name, feature_version=python)
    except (SyntaxError, ValueError) as error:
        raise ProgramSyntaxError(f"{name}: {error}") from None
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _local_files(own: Mapping[PurePosixPath, str], module: str) -> set[str]:
    path = PurePosixPath(*module.split("."))
    candidates = [path.with_suffix(".py"), path / "__init__.py"]
    candidates += [parent / "__init__.py" for parent in path.parents if parent != PurePosixPath()]
    return {own[candidate] for candidate in candidates if candidate in own}


def _is_local(own: Collection[PurePosixPath], top: str) -> bool:
    return any(path.parts[0] in (top, f"{top}.py") for path in own)
