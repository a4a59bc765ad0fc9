"""Deployment packages: archives unpacked, each into a folder of its own, and images taken note of."""

import base64
import hashlib
import shutil
import uuid
from collections.abc import Iterable
from pathlib import Path

from emulator.aws.lambda_.core.constraints import invalid
from emulator.aws.lambda_.core.function_spec import FunctionSpec, PackageType
from emulator.aws.lambda_.core.models import Function, ImageUri, Package
from emulator.aws.lambda_.core.unzip import unpack


class Packages:
    """The folder with a folder for each archive.

    Parameters
    ----------
    folder
        An existing folder, nobody else's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def store(self, spec: FunctionSpec, code: bytes | ImageUri) -> Package:
        """Unpack an archive, or take note of an image.

        Raises
        ------
        ApiError
            When the code is not of the function's package type, or the archive is refused.
        """
        if isinstance(code, ImageUri):
            if spec.package_type is PackageType.ZIP:
                raise invalid("Please do not provide ImageUri when creating a function with packageType Zip.")
            return Package(hashlib.sha256(code.text.encode()).hexdigest(), 0, image_uri=code.text)
        if spec.package_type is PackageType.IMAGE:
            raise invalid("Please provide ImageUri when creating a function with packageType Image.")
        root = self._folder / f"{spec.name}-{uuid.uuid4().hex[:8]}"
        root.mkdir()
        try:
            unpack(code, root)
        except BaseException:
            shutil.rmtree(root)
            raise
        return Package(base64.b64encode(hashlib.sha256(code).digest()).decode(), len(code), root=root)

    def remove(self, functions: Iterable[Function]) -> None:
        """Remove the code of functions that are gone."""
        for function in functions:
            if function.package.root is not None:
                shutil.rmtree(function.package.root, ignore_errors=True)

    def keep_only(self, functions: Iterable[Function]) -> None:
        """Remove all code but that of some functions."""
        used = {function.package.root for function in functions}
        for unused in set(self._folder.iterdir()) - used:
            shutil.rmtree(unused, ignore_errors=True)
