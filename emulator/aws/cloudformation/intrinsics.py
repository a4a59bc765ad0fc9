"""The functions of templates: Ref, Fn::GetAtt, Fn::Sub, Fn::If and the others, evaluated.

Reference: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/intrinsic-function-reference.html
"""

import base64
import ipaddress
import itertools
import json
import re
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from emulator.aws.cloudformation.errors import bad_template, invalid

NO_VALUE = object()
_SUBSTITUTION = re.compile(r"\$\{([^}]*)\}")
_ZONES = "abcdef"


class References(Protocol):
    """What the names in a template stand for."""

    def ref(self, name: str) -> Any:
        """Return the value of a parameter or the physical id of a resource."""

    def attribute(self, name: str, attribute: str) -> Any:
        """Return an attribute of a resource."""

    def imported(self, name: str) -> str:
        """Return the value of another stack's export."""


class Evaluator:
    """Evaluates values of a template.

    Parameters
    ----------
    references
        What names stand for.
    mappings, conditions
        Sections of the template.
    region
        For Fn::GetAZs.
    """

    def __init__(
        self,
        references: References,
        mappings: Mapping[str, Any],
        conditions: Mapping[str, Any],
        region: str,
    ) -> None:
        self._references = references
        self._mappings = mappings
        self._conditions = conditions
        self._region = region
        self._decided: dict[str, bool] = {}
        self._functions: dict[str, Callable[[Any], Any]] = {
            "Ref": lambda name: references.ref(str(name)),
            "Condition": lambda name: self.condition(str(name)),
            "Fn::And": lambda items: all(self.truth(item) for item in items),
            "Fn::Base64": lambda value: base64.b64encode(self._string(value).encode()).decode(),
            "Fn::Cidr": self._cidr,
            "Fn::Contains": lambda pair: self._string(pair[1]) in map(_text, self._list(pair[0])),
            "Fn::EachMemberEquals": lambda pair: all(
                _text(item) == self._string(pair[1]) for item in self._list(pair[0])
            ),
            "Fn::EachMemberIn": lambda pair: (
                set(map(_text, self._list(pair[0]))) <= set(map(_text, self._list(pair[1])))
            ),
            "Fn::Equals": lambda pair: _text(self.evaluate(pair[0])) == _text(self.evaluate(pair[1])),
            "Fn::FindInMap": self._find_in_map,
            "Fn::GetAZs": lambda region: [f"{self.evaluate(region) or self._region}{letter}" for letter in _ZONES[:3]],
            "Fn::GetAtt": self._get_att,
            "Fn::If": self._if,
            "Fn::ImportValue": lambda name: references.imported(self._string(name)),
            "Fn::Join": lambda pair: _text(pair[0]).join(_text(item) for item in self._list(pair[1])),
            "Fn::Length": lambda value: len(self._list(value)),
            "Fn::Not": lambda items: not self.truth(items[0]),
            "Fn::Or": lambda items: any(self.truth(item) for item in items),
            "Fn::Select": self._select,
            "Fn::Split": lambda pair: self._string(pair[1]).split(_text(pair[0])),
            "Fn::Sub": self._sub,
            "Fn::ToJsonString": lambda value: json.dumps(self.evaluate(value)),
        }

    def evaluate(self, value: Any) -> Any:
        """Return a copy of a value with all functions replaced by their results.

        Raises
        ------
        ApiError
            ValidationError when a function is unknown or its arguments are wrong.
        """
        if isinstance(value, list):
            items = [self.evaluate(item) for item in value]
            return [item for item in items if item is not NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            ((name, argument),) = value.items()
            function = self._functions.get(name)
            if function is not None and (name != "Condition" or isinstance(argument, str)):
                try:
                    return function(argument)
                except (TypeError, IndexError, KeyError, ValueError, AttributeError):
                    raise bad_template(f"invalid arguments of {name}: {argument!r:.200}") from None
            if isinstance(name, str) and name.startswith("Fn::"):
                raise bad_template(f"{name} is not emulated: expected one of {', '.join(sorted(self._functions))}")
        evaluated = {key: self.evaluate(item) for key, item in value.items()}
        return {key: item for key, item in evaluated.items() if item is not NO_VALUE}

    def condition(self, name: str) -> bool:
        """Return whether a condition holds.

        Raises
        ------
        ApiError
            ValidationError when the template has no such condition.
        """
        if name not in self._decided:
            if name not in self._conditions:
                raise bad_template(f"Unresolved condition {name}: expected one of {', '.join(self._conditions)}")
            self._decided[name] = self.truth(self._conditions[name])
        return self._decided[name]

    def truth(self, value: Any) -> bool:
        """Return whether a condition's expression holds."""
        if isinstance(value, dict) and set(value) == {"Condition"}:
            return self.condition(str(value["Condition"]))
        evaluated = self.evaluate(value)
        return evaluated if isinstance(evaluated, bool) else _text(evaluated).lower() == "true"

    def _string(self, value: Any) -> str:
        return _text(self.evaluate(value))

    def _list(self, value: Any) -> list[Any]:
        evaluated = self.evaluate(value)
        if not isinstance(evaluated, list):
            raise TypeError
        return evaluated

    def _get_att(self, argument: Any) -> Any:
        name, attribute = argument.split(".", 1) if isinstance(argument, str) else (argument[0], argument[1])
        return self._references.attribute(str(name), self._string(attribute))

    def _if(self, arguments: Any) -> Any:
        name, yes, no = arguments
        return self.evaluate(yes if self.condition(str(name)) else no)

    def _select(self, arguments: Any) -> Any:
        index, items = int(self._string(arguments[0])), self._list(arguments[1])
        if not 0 <= index < len(items):
            raise bad_template(f"Fn::Select cannot select nonexistent value at index {index}")
        return items[index]

    def _find_in_map(self, arguments: Any) -> Any:
        keys = [self._string(key) for key in arguments[:3]]
        found: Any = self._mappings
        for key in keys:
            if not isinstance(found, dict) or key not in found:
                if len(arguments) > 3 and "DefaultValue" in arguments[3]:
                    return self.evaluate(arguments[3]["DefaultValue"])
                raise invalid(f"Template error: Unable to get mapping for {'::'.join(keys)}")
            found = found[key]
        return found

    def _sub(self, argument: Any) -> str:
        text, own = argument if isinstance(argument, list) else (argument, {})

        def replace(match: re.Match[str]) -> str:
            name = match[1].strip()
            if match[1].startswith("!"):
                return "${" + match[1][1:] + "}"
            if name in own:
                return self._string(own[name])
            if "." in name:
                return _text(self._references.attribute(*name.split(".", 1)))
            return _text(self._references.ref(name))

        return _SUBSTITUTION.sub(replace, str(text))

    def _cidr(self, arguments: Any) -> list[str]:
        block, count = self._string(arguments[0]), int(self._string(arguments[1]))
        bits = int(self._string(arguments[2])) if len(arguments) > 2 else 8
        network = ipaddress.ip_network(block)
        subnets = network.subnets(new_prefix=network.max_prefixlen - bits)
        return [str(subnet) for subnet in itertools.islice(subnets, count)]


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if value is NO_VALUE:
        return ""
    return ",".join(map(_text, value)) if isinstance(value, list) else str(value)
