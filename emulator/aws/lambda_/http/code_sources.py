"""Where the code of functions and layers comes from: a request, or an object in S3."""

from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

from emulator.aws import limits
from emulator.aws.account import Account
from emulator.aws.lambda_.code_downloads import CodeDownloads
from emulator.aws.lambda_.core.layers import Layers
from emulator.aws.lambda_.core.models import ImageUri
from emulator.aws.lambda_.core.references import invalid_parameter
from emulator.aws.lambda_.http.requests import Parameters
from emulator.errors import ApiError


class CodeSources:
    """Where the code of functions and layers comes from and goes to."""

    def __init__(
        self,
        read_object: Callable[[str, str], bytes],
        layers: Layers,
        downloads: CodeDownloads,
        vpc_of: Callable[[str, Sequence[str], Sequence[str]], str],
    ) -> None:
        self._read_object = read_object
        self._layers = layers
        self.downloads = downloads
        self._vpc_of = vpc_of

    def of(self, code: Parameters) -> bytes | ImageUri:
        """Return the archive or the image of a request."""
        return ImageUri(code["ImageUri"]) if code.get("ImageUri") else self.archive(code)

    def archive(self, code: Parameters) -> bytes:
        """Return the archive of a request, which has it or names an object in S3."""
        if code.get("ZipFile"):
            archive: bytes = code["ZipFile"]
            if len(archive) > limits.ZIPPED_CODE_BYTES:
                raise ApiError(
                    "RequestEntityTooLargeException",
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"Zipped size must be smaller than {limits.ZIPPED_CODE_BYTES} bytes",
                )
            return archive
        if code.get("S3Bucket") and code.get("S3Key"):
            try:
                return self._read_object(code["S3Bucket"], code["S3Key"])
            except ApiError as error:
                raise invalid_parameter(
                    f"Error occurred while GetObject. S3 Error Code: {error.code}. S3 Error Message: {error.message}"
                ) from None
        raise invalid_parameter("Please provide a source for function code.")

    def completed(self, parameters: Parameters, account: Account) -> dict[str, Any]:
        """Return a request for a function with the VPC of its subnets.

        Raises
        ------
        ApiError
            When a subnet or security group does not exist.
        """
        vpc = parameters.get("VpcConfig")
        if not vpc:
            return dict(parameters)
        subnets, groups = vpc.get("SubnetIds", ()), vpc.get("SecurityGroupIds", ())
        vpc_id = self._vpc_of(account.region, subnets, groups) if subnets else ""
        return {**parameters, "VpcConfig": {**vpc, "VpcId": vpc_id}}
