"""Transforms: a template's macros, applied before its resources are read."""

import asyncio
import copy
import json
import threading
from collections.abc import Mapping
from typing import Any

from emulator.aws.cloudformation.errors import invalid
from emulator.aws.cloudformation.template import Template
from emulator.aws.sdk_client import AwsClient

SERVERLESS = "AWS::Serverless-2016-10-31"
# The translator reads the region from the process's default session.
_TRANSLATOR = threading.Lock()


async def apply_transforms(
    template: Template, parameters: Mapping[str, str], account: str, region: str, aws: AwsClient
) -> Template:
    """Return a template without transforms.

    Parameters
    ----------
    template
        The template as sent.
    parameters
        The given values of its parameters.
    account, region
        Where the stack is.
    aws
        Finds the managed policies that templates name.

    Raises
    ------
    ApiError
        ValidationError when a transform is not emulated, or the template is not valid for it.
    """
    for name in template.transforms:
        if name != SERVERLESS:
            raise invalid(f"No transform named {name} found: expected {SERVERLESS}")
    if not template.transforms:
        return template
    body = await asyncio.to_thread(_translate, copy.deepcopy(dict(template.body)), dict(parameters), account, region)
    return Template(template.text, body)


def _translate(body: dict[str, Any], parameters: dict[str, str], account: str, region: str) -> dict[str, Any]:
    """Expand the resources of the Serverless Application Model into those of CloudFormation."""
    try:
        import boto3
        from samtranslator.model.exceptions import InvalidDocumentException
        from samtranslator.parser.parser import Parser
        from samtranslator.translator.translator import Translator
    except ModuleNotFoundError:
        raise invalid(
            f"the transform {SERVERLESS} needs the package aws-sam-translator: install fmi-emulator[sam]"
        ) from None
    session = boto3.Session(region_name=region)
    defaults = {
        "AWS::AccountId": account,
        "AWS::Partition": "aws",
        "AWS::Region": region,
        "AWS::URLSuffix": "amazonaws.com",
    }
    with _TRANSLATOR:
        try:
            translator = Translator(_ManagedPolicies(), Parser(), boto_session=session)
            translated: dict[str, Any] = translator.translate(body, {**defaults, **parameters})
        except InvalidDocumentException as error:
            causes = "; ".join(str(cause.message) for cause in error.causes)
            raise invalid(
                f"Transform {SERVERLESS} failed with: Invalid Serverless Application Specification "
                f"document. Number of errors found: {len(error.causes)}. {causes}"
            ) from None
    translated.pop("Transform", None)
    # The translator keeps some values as objects of its own.
    plain: dict[str, Any] = json.loads(json.dumps(translated, default=str))
    return plain


class _ManagedPolicies(dict[str, str]):
    """The ARNs of AWS's managed policies by name."""

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name.startswith(("AWS", "Amazon", "Cloud", "ReadOnly", "Secrets"))

    def __getitem__(self, name: str) -> str:
        service = "service-role/" if name.startswith("AWSLambda") and name.endswith("Role") else ""
        return f"arn:aws:iam::aws:policy/{service}{name}"

    def get(self, name: str, default: Any = None) -> Any:
        """Return a policy's ARN."""
        return self[name] if self.__contains__(name) else default
