"""A bucket's CORS rules: which web pages of other origins may use it.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/cors.html
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from emulator.aws.s3.http import xml
from emulator.errors import ApiError

NOT_ALLOWED = (
    "CORSResponse: This CORS request is not allowed. This is usually because the evalution of Origin, request method / "
    "Access-Control-Request-Method or Access-Control-Request-Headers are not whitelisted by the resource's CORS spec."
)


@dataclass(frozen=True)
class CorsRule:
    """One rule: what pages of some origins may do.

    Parameters
    ----------
    origins, methods, headers, exposed
        The elements of the rule; origins and headers may contain one ``*``.
    max_age
        For how many seconds browsers keep the answer; empty if not set.
    """

    origins: tuple[str, ...]
    methods: tuple[str, ...]
    headers: tuple[str, ...]
    exposed: tuple[str, ...]
    max_age: str

    def allows(self, origin: str, method: str, headers: tuple[str, ...]) -> bool:
        """Return whether the rule allows a method with request headers, in lower case, to pages of an origin."""
        return (
            method in self.methods
            and any(_matches(allowed, origin) for allowed in self.origins)
            and all(any(_matches(allowed.lower(), header) for allowed in self.headers) for header in headers)
        )

    def response_headers(self, origin: str, headers: tuple[str, ...]) -> dict[str, str]:
        """Return the headers of the response to an allowed request."""
        found = {
            "Access-Control-Allow-Origin": "*" if "*" in self.origins else origin,
            "Access-Control-Allow-Methods": ", ".join(self.methods),
            "Vary": "Origin, Access-Control-Request-Headers, Access-Control-Request-Method",
        }
        if "*" not in self.origins:
            found["Access-Control-Allow-Credentials"] = "true"
        if headers:
            found["Access-Control-Allow-Headers"] = ", ".join(headers)
        if self.exposed:
            found["Access-Control-Expose-Headers"] = ", ".join(self.exposed)
        if self.max_age:
            found["Access-Control-Max-Age"] = self.max_age
        return found


def cors_headers(rules: tuple[CorsRule, ...], origin: str, method: str, headers: str) -> dict[str, str] | None:
    """Return the headers that allow a request to a web page; None if no rule allows it.

    Parameters
    ----------
    rules
        The bucket's rules: the first that allows the request applies.
    origin
        The origin of the page.
    method
        The method of the request.
    headers
        The Access-Control-Request-Headers of a preflight request; otherwise empty.
    """
    wanted = tuple(name for text in headers.split(",") if (name := text.strip().lower()))
    rule = next((rule for rule in rules if rule.allows(origin, method, wanted)), None)
    return None if rule is None else rule.response_headers(origin, wanted)


def parse_cors(document: bytes) -> tuple[CorsRule, ...]:
    """Parse a CORSConfiguration; a document that is not one has no rules."""
    try:
        rules = xml.read("PutBucketCors", document)["CORSRules"]
    except ApiError:
        return ()
    return tuple(
        CorsRule(
            _texts(rule, "AllowedOrigins"),
            _texts(rule, "AllowedMethods"),
            _texts(rule, "AllowedHeaders"),
            _texts(rule, "ExposeHeaders"),
            str(rule.get("MaxAgeSeconds", "")),
        )
        for rule in rules
    )


def _texts(rule: Mapping[str, Any], name: str) -> tuple[str, ...]:
    return tuple(text.strip() for text in rule.get(name, ()))


def _matches(pattern: str, text: str) -> bool:
    return re.fullmatch(".*".join(re.escape(part) for part in pattern.split("*")), text) is not None
