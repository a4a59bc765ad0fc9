"""The errors of CloudFormation's API and of a deployment."""

from http import HTTPStatus

from emulator.errors import ApiError, EmulatorError


class ResourceFailedError(EmulatorError):
    """A resource could not be created, updated or deleted; the message is the reason of its event."""


def invalid(message: str) -> ApiError:
    """Return the error of a request or template that is not valid."""
    return ApiError("ValidationError", HTTPStatus.BAD_REQUEST, message)


def bad_template(message: str) -> ApiError:
    """Return the error of a template that has another form than CloudFormation requires."""
    return invalid(f"Template format error: {message}")
