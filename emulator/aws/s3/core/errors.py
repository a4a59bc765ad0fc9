"""S3's errors, with AWS's codes and messages.

Source: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from http import HTTPStatus

from emulator.errors import ApiError


def no_such_bucket(bucket: str) -> ApiError:
    """Return the error for a bucket that does not exist."""
    details = {"BucketName": bucket}
    return ApiError("NoSuchBucket", HTTPStatus.NOT_FOUND, "The specified bucket does not exist", details)


def no_such_key(key: str) -> ApiError:
    """Return the error for an object that does not exist."""
    return ApiError("NoSuchKey", HTTPStatus.NOT_FOUND, "The specified key does not exist.", {"Key": key})


def no_such_version(key: str, version_id: str) -> ApiError:
    """Return the error for a version that does not exist."""
    details = {"Key": key, "VersionId": version_id}
    return ApiError("NoSuchVersion", HTTPStatus.NOT_FOUND, "The specified version does not exist.", details)


def no_such_upload(upload_id: str) -> ApiError:
    """Return the error for a multipart upload that does not exist or has ended."""
    message = (
        "The specified upload does not exist. The upload ID may be invalid, or the upload may have been aborted or "
        "completed."
    )
    return ApiError("NoSuchUpload", HTTPStatus.NOT_FOUND, message, {"UploadId": upload_id})


def bad_request(code: str, message: str) -> ApiError:
    """Return an error with status 400."""
    return ApiError(code, HTTPStatus.BAD_REQUEST, message)


def not_implemented(what: str) -> ApiError:
    """Return the error for a feature of S3 that is not emulated."""
    return ApiError("NotImplemented", HTTPStatus.NOT_IMPLEMENTED, f"{what} is not emulated")
