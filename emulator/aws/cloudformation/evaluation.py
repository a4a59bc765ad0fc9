"""The evaluation of a template for one stack: parameters, conditions, resources, other stacks' exports, secrets."""

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

from emulator.aws.cloudformation.errors import ResourceFailedError, bad_template, invalid
from emulator.aws.cloudformation.intrinsics import NO_VALUE, Evaluator
from emulator.aws.cloudformation.resource import StackIdentity
from emulator.aws.cloudformation.stacks import StackOutput, StackResource
from emulator.aws.cloudformation.template import ParameterValue, Template
from emulator.aws.sdk_client import AwsClient

# https://docs.aws.amazon.com/AWSCloudFormation/latest/UserGuide/dynamic-references.html
_DYNAMIC = re.compile(r"\{\{resolve:(ssm|ssm-secure|secretsmanager):([^}]+)\}\}")
# What a change set shows for values that only the deployment makes.
KNOWN_LATER = "{{changeSet:KNOWN_AFTER_APPLY}}"


class Evaluation:
    """Evaluates a template with the resources of a stack.

    Parameters
    ----------
    template
        The template.
    parameters
        The parameters' values.
    identity
        The stack.
    notification_arns
        For the pseudo parameter.
    resources
        The stack's resources by logical id; read at each evaluation.
    find_export
        Returns the value of an export by its name, or None.
    aws
        Reads what dynamic references name.
    is_preview
        Whether resources that do not exist yet have a placeholder instead of raising an error.

    Attributes
    ----------
    template
        The template.
    imports
        The names of the exports that were read.
    """

    def __init__(
        self,
        template: Template,
        parameters: Mapping[str, ParameterValue],
        identity: StackIdentity,
        notification_arns: tuple[str, ...],
        resources: Mapping[str, StackResource],
        find_export: Callable[[str], str | None],
        aws: AwsClient,
        *,
        is_preview: bool = False,
    ) -> None:
        self.template = template
        self.imports: set[str] = set()
        self._parameters = parameters
        self._region = identity.region
        self._resources = resources
        self._find_export = find_export
        self._aws = aws
        self._is_preview = is_preview
        self._pseudo = {
            "AWS::AccountId": identity.account,
            "AWS::NoValue": NO_VALUE,
            "AWS::NotificationARNs": list(notification_arns),
            "AWS::Partition": identity.arn.split(":")[1],
            "AWS::Region": identity.region,
            "AWS::StackId": identity.arn,
            "AWS::StackName": identity.name,
            "AWS::URLSuffix": "amazonaws.com",
        }
        body = template.body
        self._evaluator = Evaluator(self, body.get("Mappings") or {}, body.get("Conditions") or {}, identity.region)

    def ref(self, name: str) -> Any:
        """Return the value of a parameter or the physical id of a resource."""
        if name in self._parameters:
            return self._parameters[name].value
        if name in self._pseudo:
            return self._pseudo[name]
        found = self._resource(name)
        return KNOWN_LATER if found is None else found.physical_id

    def attribute(self, name: str, attribute: str) -> Any:
        """Return an attribute of a resource."""
        found = self._resource(name)
        if found is None or found.resource is None:
            return KNOWN_LATER
        value = found.resource.attributes.get(attribute)
        if value is None:
            raise invalid(f"Template error: resource {name} does not support attribute type {attribute} in Fn::GetAtt")
        return value

    def imported(self, name: str) -> str:
        """Return the value of another stack's export."""
        value = self._find_export(name)
        if value is None:
            raise invalid(f"No export named {name} found.")
        self.imports.add(name)
        return value

    def check_rules(self) -> None:
        """Check the assertions of the template's rules about its parameters.

        Raises
        ------
        ApiError
            ValidationError, with the assertion's own description.
        """
        for name, rule in (self.template.body.get("Rules") or {}).items():
            if "RuleCondition" in rule and not self._evaluator.truth(rule["RuleCondition"]):
                continue
            for assertion in rule.get("Assertions") or []:
                if not self._evaluator.truth(assertion.get("Assert")):
                    described = assertion.get("AssertDescription", "no description given")
                    raise invalid(f"Template error: Rule {name}: {described}")

    def wanted(self) -> list[str]:
        """Return the logical ids of the resources whose condition holds."""
        return [
            name
            for name, resource in self.template.resources.items()
            if "Condition" not in resource or self._evaluator.condition(str(resource["Condition"]))
        ]

    def dependencies(self, name: str) -> set[str]:
        """Return the resources that a resource needs, of those whose condition holds."""
        return self.template.dependencies(name).intersection(self.wanted())

    def evaluate(self, value: Any) -> Any:
        """Return a value without functions."""
        return self._evaluator.evaluate(value)

    async def properties(self, name: str) -> dict[str, Any]:
        """Return a resource's properties, with secrets and parameters that dynamic references name."""
        definition = self.template.resources[name]
        evaluated: dict[str, Any] = self.evaluate(definition.get("Properties") or {})
        resolved: dict[str, Any] = await self._resolve(evaluated)
        return resolved

    async def outputs(self) -> dict[str, StackOutput]:
        """Return the outputs whose condition holds.

        Raises
        ------
        ApiError
            ValidationError when an output has no value.
        """
        outputs = {}
        for key, output in self.template.outputs.items():
            if "Condition" in output and not self._evaluator.condition(str(output["Condition"])):
                continue
            value = self.evaluate(output.get("Value"))
            if value is None or value is NO_VALUE:
                raise bad_template(f"Output {key} has no Value")
            export = self.evaluate(output.get("Export") or {}).get("Name")
            text = value if isinstance(value, str) else json.dumps(value)
            outputs[key] = StackOutput(key, text, self.evaluate(output.get("Description")), export)
        return outputs

    def _resource(self, name: str) -> StackResource | None:
        found = self._resources.get(name)
        if found is None or found.resource is None:
            if self._is_preview:
                return None
            raise bad_template(f"Unresolved resource dependencies [{name}] in the Resources block of the template")
        return found

    async def _resolve(self, value: Any) -> Any:
        """Replace dynamic references by the values that they name."""
        if isinstance(value, dict):
            return {key: await self._resolve(item) for key, item in value.items()}
        if isinstance(value, list):
            return [await self._resolve(item) for item in value]
        if not isinstance(value, str) or "{{resolve:" not in value:
            return value
        parts, position = [], 0
        for match in _DYNAMIC.finditer(value):
            parts += [value[position : match.start()], await self._dynamic(match[1], match[2])]
            position = match.end()
        return "".join(parts) + value[position:]

    async def _dynamic(self, service: str, reference: str) -> str:
        if service != "secretsmanager":
            return await read_parameter(self._aws, self._region, reference)
        arn = re.match(r"arn:[^:]+:secretsmanager:[^:]+:[^:]+:secret:[^:]+", reference)
        secret = arn[0] if arn else reference.split(":")[0]
        kind, key, stage, version, *_ = [*reference[len(secret) + 1 :].split(":"), "", "", "", ""]
        if kind not in ("", "SecretString"):
            raise ResourceFailedError(f"invalid dynamic reference {reference!r}: expected SecretString, got {kind!r}")
        request = {"SecretId": secret, "VersionStage": stage, "VersionId": version}
        found = await self._aws.call(
            "secretsmanager", "GetSecretValue", {name: text for name, text in request.items() if text}, self._region
        )
        if not key:
            return str(found["SecretString"])
        try:
            return str(json.loads(found["SecretString"])[key])
        except (ValueError, KeyError, TypeError):
            raise ResourceFailedError(f"Could not find a value associated with JSONKey {key} in SecretString") from None


async def read_parameter(aws: AwsClient, region: str, name: str) -> str:
    """Return the value of a parameter in Systems Manager; a version may follow its name.

    Raises
    ------
    botocore.exceptions.ClientError
        When it does not exist.
    """
    found = await aws.call("ssm", "GetParameter", {"Name": name, "WithDecryption": True}, region)
    return str(found["Parameter"]["Value"])
