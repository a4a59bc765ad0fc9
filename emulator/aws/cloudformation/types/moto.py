"""The types that moto's own classes create, update and delete: IAM, EC2, load balancers, Route 53 and others.

The classes are the subclasses of moto's `CloudFormationModel`, which moto's own CloudFormation collects in
`get_model_map`. They are private to moto: a test checks what is used of them. They run in threads, as moto's requests
do.
"""

import asyncio
import importlib
import threading
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

from moto.core.common_models import CloudFormationModel

from emulator.aws.cloudformation.errors import ResourceFailedError
from emulator.aws.cloudformation.resource import ReplacementNeededError, Resource, ResourceRequest

# Moto's classes change shared dictionaries without locks.
_LOCK = threading.Lock()


# The modules of moto whose classes serve types, by the service in the types' names. Each is imported when a stack needs
# it: together they take seconds.
_MODULES = {
    "ApiGateway": "apigateway",
    "AutoScaling": "autoscaling",
    "Batch": "batch",
    "CloudWatch": "cloudwatch",
    "DynamoDB": "dynamodb",
    "EC2": "ec2",
    "ECR": "ecr",
    "EFS": "efs",
    "EMR": "emr",
    "ElasticLoadBalancing": "elb",
    "ElasticLoadBalancingV2": "elbv2",
    "Events": "events",
    "IAM": "iam",
    "Kinesis": "kinesis",
    "KMS": "kms",
    "RDS": "rds",
    "Redshift": "redshift",
    "Route53": "route53",
    "SSM": "ssm",
    "SageMaker": "sagemaker",
}


@cache
def moto_class(name: str) -> type[Any] | None:
    """Return the class of moto that serves a type; None if there is none.

    Parameters
    ----------
    name
        The type, such as ``AWS::EC2::VPC``.

    Raises
    ------
    ResourceFailedError
        When a package that moto needs for it is not installed.
    """
    _, service, _ = [*name.split("::"), "", ""][:3]
    if service not in _MODULES:
        return None
    try:
        # Its classes read their attributes with errors of moto's own CloudFormation.
        importlib.import_module("moto.cloudformation")
        importlib.import_module(f"moto.{_MODULES[service]}.models")
    except ModuleNotFoundError as error:
        raise ResourceFailedError(
            f"resource type {name} needs the Python package {error.name}: install fmi-emulator[cloudformation]"
        ) from None
    return moto_classes().get(name)


def moto_classes() -> dict[str, type[Any]]:
    """Return the classes of the modules of moto that are imported, by type."""
    classes: dict[str, type[Any]] = {}
    open_classes: list[type[Any]] = [CloudFormationModel]
    while open_classes:
        for subclass in open_classes.pop().__subclasses__():
            open_classes.append(subclass)
            classes.setdefault(subclass.cloudformation_type(), subclass)
    return classes


class MotoAttributes(Mapping[str, Any]):
    """The attributes of an object of moto, read when they are asked for."""

    def __init__(self, resource: Any) -> None:
        self.resource = resource

    def __getitem__(self, name: str) -> Any:
        try:
            value = self.resource.get_cfn_attribute(name)
        except Exception:  # noqa: BLE001 - moto has several errors for an unknown attribute
            raise KeyError(name) from None
        if value is None:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


class MotoResource:
    """A type of moto.

    Parameters
    ----------
    model
        Moto's class.
    """

    def __init__(self, model: type[Any]) -> None:
        self._class = model

    def replaces(self, request: ResourceRequest) -> bool:
        """Return whether a change needs a new resource."""
        name_property = self._name_property()
        renames = bool(name_property) and request.changed(name_property)
        return renames or _is_abstract(self._class.update_from_cloudformation_json)

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a resource in moto."""
        return await asyncio.to_thread(self._create, request)

    async def update(self, request: ResourceRequest) -> Resource:
        """Change a resource in moto."""
        if self.replaces(request):
            raise ReplacementNeededError
        return await asyncio.to_thread(self._update, request)

    async def delete(self, request: ResourceRequest) -> None:
        """Delete a resource from moto."""
        await asyncio.to_thread(self._delete, request)

    def _create(self, request: ResourceRequest) -> Resource:
        stack = request.stack
        with _LOCK:
            made = self._class.create_from_cloudformation_json(
                self._name(request),
                _definition(request, request.properties),
                stack.account,
                stack.region,
                LogicalId=request.logical_id,
                StackId=stack.arn,
                ResourceType=request.type,
            )
        return _resource(request, made)

    def _update(self, request: ResourceRequest) -> Resource:
        stack, current = request.stack, request.current
        if current is None or not isinstance(current.attributes, MotoAttributes):
            raise _restored_error(request, "changed")
        with _LOCK:
            updated = self._class.update_from_cloudformation_json(
                original_resource=current.attributes.resource,
                new_resource_name=current.physical_id,
                cloudformation_json=_definition(request, request.properties),
                account_id=stack.account,
                region_name=stack.region,
            )
        return current if updated is None else _resource(request, updated)

    def _delete(self, request: ResourceRequest) -> None:
        stack, current = request.stack, request.current
        resource = current.attributes.resource if current and isinstance(current.attributes, MotoAttributes) else None
        with _LOCK:
            # Some classes delete by their object, most by its id.
            if resource is not None and hasattr(resource, "delete"):
                try:
                    resource.delete(stack.account, stack.region)
                except TypeError:
                    pass
                else:
                    return
            if not _is_abstract(self._class.delete_from_cloudformation_json):
                definition = _definition(request, request.properties)
                self._class.delete_from_cloudformation_json(
                    request.physical_id, definition, stack.account, stack.region
                )
            elif resource is None and current is not None:
                raise _restored_error(request, "deleted")

    def _name(self, request: ResourceRequest) -> str:
        own = request.properties.get(self._name_property()) if self._name_property() else None
        short = request.type.startswith("AWS::ElasticLoadBalancingV2::")
        return str(own) if own else request.generated_name(32 if short else 64)

    def _name_property(self) -> str:
        return str(self._class.cloudformation_name_type() or "")


def _restored_error(request: ResourceRequest, what: str) -> ResourceFailedError:
    return ResourceFailedError(
        f"{request.physical_id} ({request.type}) cannot be {what} by its stack since the endpoint was started again: "
        "moto's object is not kept with the stack; use the service's own API, and retain the resource"
    )


def _resource(request: ResourceRequest, made: Any) -> Resource:
    physical_id = getattr(made, "physical_resource_id", None)
    if not isinstance(physical_id, str) or not physical_id:
        raise ResourceFailedError(f"moto made no {request.type} from these properties")
    return Resource(physical_id, MotoAttributes(made))


def _definition(request: ResourceRequest, properties: Mapping[str, Any]) -> dict[str, Any]:
    return {"Type": request.type, "Properties": dict(properties)}


def _is_abstract(method: Any) -> bool:
    return bool(getattr(method, "__isabstractmethod__", False))
