"""Names of functions: a name, a partial ARN or an ARN, each with an optional version or alias, in a region."""

import re
from dataclasses import dataclass
from functools import cached_property
from http import HTTPStatus

from emulator.aws.account import Account
from emulator.errors import ApiError

LATEST = "$LATEST"
# What is no number can be the name of an alias.
ALIAS = re.compile(r"(?!^[0-9]+$)[a-zA-Z0-9-_]+")
_REFERENCE = re.compile(
    r"(?:arn:aws[a-zA-Z-]*:lambda:)?(?:(?P<region>[a-z]{2,}(?:-[a-z]+)+-\d):)?(?:(?P<account>\d{12}):)?(?:function:)?"
    r"(?P<name>[A-Za-z0-9_.-]+)(?::(?P<qualifier>[A-Za-z0-9$_.-]+))?"
)


def invalid_parameter(message: str) -> ApiError:
    """Return AWS's error for a well-formed value that Lambda does not accept."""
    return ApiError("InvalidParameterValueException", HTTPStatus.BAD_REQUEST, message)


def without_type(message: str) -> ApiError:
    """Return the error for a value that the account's quotas forbid: recorded on AWS without the member Type."""
    return ApiError("InvalidParameterValueException", HTTPStatus.BAD_REQUEST, message, {"Type": ""})


def resource_not_found(message: str) -> ApiError:
    """Return AWS's error for something that does not exist."""
    return ApiError("ResourceNotFoundException", HTTPStatus.NOT_FOUND, message)


def conflict(message: str) -> ApiError:
    """Return AWS's error for something that exists already, or is in use."""
    return ApiError("ResourceConflictException", HTTPStatus.CONFLICT, message)


DEFAULT_ACCOUNT = Account()


@dataclass(frozen=True)
class Reference:
    """A function's name with an optional version or alias."""

    account: Account
    name: str
    qualifier: str | None = None

    @classmethod
    def parse(cls, text: str, qualifier: str | None = None, account: Account = DEFAULT_ACCOUNT) -> "Reference":
        """Parse a name, a partial ARN or an ARN.

        Parameters
        ----------
        text
            The name.
        qualifier
            A version or alias that was given beside it.
        account
            Where the caller is.

        Raises
        ------
        ApiError
            When the text is none of these, is in another region, or has another qualifier.
        """
        match = _REFERENCE.fullmatch(text)
        if match is None:
            raise invalid_parameter(f"invalid FunctionName {text!r}: expected a name or an ARN")
        region, own_qualifier = match["region"], match["qualifier"]
        if region is not None and region != account.region:
            raise resource_not_found(f"Functions from '{region}' are not reachable in this region ('{account.region}')")
        if qualifier is not None and own_qualifier not in (None, qualifier):
            raise invalid_parameter(
                "The derived qualifier from the function name does not match the specified qualifier."
            )
        return cls(account, match["name"], qualifier or own_qualifier)

    @cached_property
    def key(self) -> str:
        """What identifies the function, without the qualifier, among those of all regions."""
        return f"{self.account.region}/{self.name}"

    @property
    def arn(self) -> str:
        """The function's ARN, without the qualifier."""
        return self.account.arn("lambda", f"function:{self.name}")

    @property
    def qualified_arn(self) -> str:
        """The function's ARN with the qualifier, if there is one."""
        return self.arn if self.qualifier is None else f"{self.arn}:{self.qualifier}"

    def unqualified(self) -> "Reference":
        """Return the reference to the function itself."""
        return Reference(self.account, self.name)


def account_of(arn: str, default: Account = DEFAULT_ACCOUNT) -> Account:
    """Return the region of an ARN, in the caller's account; of any other text, the caller's region."""
    parts = arn.split(":")
    return Account(parts[3], default.number) if len(parts) > 4 and parts[0] == "arn" and parts[3] else default
