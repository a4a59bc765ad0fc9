"""Filter patterns for unstructured log events.

Source: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/FilterAndPatternSyntax.html
"""

import re
from collections.abc import Callable
from http import HTTPStatus

from emulator.errors import ApiError

_TERM = re.compile(r'(?P<sign>[-?]?)(?:"(?P<quoted>[^"]*)"|(?P<plain>[^\s"]+))')


def matcher(pattern: str) -> Callable[[str], bool]:
    """Return a function that tells whether a message matches.

    Parameters
    ----------
    pattern
        Terms that must all be there, ``-term`` for one that must not, ``?term`` for some of which one must be there;
        ``"a phrase"`` is a term.

    Raises
    ------
    ApiError
        InvalidParameterException for patterns of other kinds: JSON, space-delimited, regular expressions.
    """
    pattern = pattern.strip()
    if pattern[:1] in ("{", "[", "%"):
        message = f'filterPattern: only terms are emulated, as in ERROR -"a phrase" ?any, got {pattern!r}'
        raise ApiError("InvalidParameterException", HTTPStatus.BAD_REQUEST, message)
    terms: dict[str, list[str]] = {"": [], "-": [], "?": []}
    for term in _TERM.finditer(pattern):
        terms[term["sign"]].append(term["quoted"] if term["quoted"] is not None else term["plain"])

    def matches(message: str) -> bool:
        return (
            all(term in message for term in terms[""])
            and not any(term in message for term in terms["-"])
            and (not terms["?"] or any(term in message for term in terms["?"]))
        )

    return matches
