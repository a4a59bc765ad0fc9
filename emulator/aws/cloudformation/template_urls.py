"""Templates at the URLs of objects in S3."""

import re
import urllib.parse

from botocore.exceptions import ClientError

from emulator.aws.cloudformation.errors import invalid
from emulator.aws.limits import MIB
from emulator.aws.sdk_client import AwsClient

_TEMPLATE_BYTES = MIB
_S3_HOST = re.compile(r"(?:(?P<bucket>.+)\.)?s3[.-](?:[a-z0-9-]+\.)?amazonaws\.com(?:\.cn)?")


async def read_template(url: str, region: str, aws: AwsClient) -> str:
    """Return the template at the URL of an object in S3, in any of S3's forms or at the endpoint's own address.

    Raises
    ------
    ApiError
        ValidationError when the URL is not one of S3, or the object cannot be read.
    """
    parts = urllib.parse.urlsplit(url)
    path = urllib.parse.unquote(parts.path.lstrip("/"))
    match = _S3_HOST.fullmatch(parts.hostname or "")
    virtual = re.fullmatch(r"(.+)\.s3\.(?:[a-z0-9-]+\.)?localhost.*", parts.hostname or "")
    bucket = match["bucket"] if match else virtual[1] if virtual else None
    if parts.scheme == "s3":
        bucket = parts.netloc
    if bucket is None:
        bucket, _, path = path.partition("/")
    if not bucket or not path:
        raise invalid(f"invalid TemplateURL {url!r:.200}: expected the URL of an object in S3")
    try:
        found = await aws.call("s3", "GetObject", {"Bucket": bucket, "Key": path}, region)
    except ClientError as error:
        raise invalid(f"S3 error: {error.response['Error'].get('Message', '')}") from None
    content: bytes = found["Body"]
    if len(content) > _TEMPLATE_BYTES:
        raise invalid(f"template of {len(content)} bytes: expected at most {_TEMPLATE_BYTES}")
    return content.decode(errors="replace")
