"""AWS::S3: buckets with their configuration, and bucket policies.

Properties: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_S3.html
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.types.api import ApiResource, check_known
from emulator.aws.limits import REGION

# A property, the operations that set and delete it, and the parameter.
_CONFIGURATIONS = {
    "VersioningConfiguration": ("PutBucketVersioning", "", "VersioningConfiguration"),
    "OwnershipControls": ("PutBucketOwnershipControls", "DeleteBucketOwnershipControls", "OwnershipControls"),
    "PublicAccessBlockConfiguration": (
        "PutPublicAccessBlock",
        "DeletePublicAccessBlock",
        "PublicAccessBlockConfiguration",
    ),
    "BucketEncryption": ("PutBucketEncryption", "DeleteBucketEncryption", "ServerSideEncryptionConfiguration"),
    "LifecycleConfiguration": ("PutBucketLifecycleConfiguration", "DeleteBucketLifecycle", "LifecycleConfiguration"),
    "CorsConfiguration": ("PutBucketCors", "DeleteBucketCors", "CORSConfiguration"),
    "LoggingConfiguration": ("PutBucketLogging", "", "BucketLoggingStatus"),
    "WebsiteConfiguration": ("PutBucketWebsite", "DeleteBucketWebsite", "WebsiteConfiguration"),
    "AccelerateConfiguration": ("PutBucketAccelerateConfiguration", "", "AccelerateConfiguration"),
    "NotificationConfiguration": ("PutBucketNotificationConfiguration", "", "NotificationConfiguration"),
}
_KNOWN = frozenset([*_CONFIGURATIONS, "BucketName", "AccessControl", "ObjectLockEnabled", "Tags"])
# What a configuration without an operation to delete it is set to.
_EMPTY: Mapping[str, dict[str, Any]] = {
    "VersioningConfiguration": {"Status": "Suspended"},
    "LoggingConfiguration": {},
    "AccelerateConfiguration": {"Status": "Suspended"},
    "NotificationConfiguration": {},
}
_CANNED = {
    "AuthenticatedRead": "authenticated-read",
    "AwsExecRead": "aws-exec-read",
    "BucketOwnerFullControl": "bucket-owner-full-control",
    "BucketOwnerRead": "bucket-owner-read",
    "LogDeliveryWrite": "log-delivery-write",
    "Private": "private",
    "PublicRead": "public-read",
    "PublicReadWrite": "public-read-write",
}


class Bucket(ApiResource):
    """AWS::S3::Bucket."""

    service = "s3"
    replaced_by = frozenset(["BucketName", "ObjectLockEnabled"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a bucket, and configure it."""
        check_known(request, _KNOWN)
        name = str(request.properties.get("BucketName") or request.generated_name(63, "A-Za-z0-9-").lower())
        region = request.stack.region
        acl = request.properties.get("AccessControl")
        await self.call(
            request,
            "CreateBucket",
            {
                "Bucket": name,
                "ACL": None if acl is None else _CANNED.get(acl, acl),
                "ObjectLockEnabledForBucket": request.properties.get("ObjectLockEnabled"),
                "CreateBucketConfiguration": None if region == REGION else {"LocationConstraint": region},
            },
        )
        try:
            for member in _CONFIGURATIONS:
                if member in request.properties:
                    await self._configure(request, name, member)
            await self._tag(request, name)
        except Exception:
            # A failed resource has no id, so the rollback could not delete it.
            await self.call(request, "DeleteBucket", {"Bucket": name})
            raise
        return Resource(name, self._attributes(request, name))

    async def update(self, request: ResourceRequest) -> Resource:
        """Change the bucket's configuration."""
        check_known(request, _KNOWN)
        name = request.physical_id
        for member, (_, delete, parameter) in _CONFIGURATIONS.items():
            if not request.changed(member):
                continue
            if member in request.properties:
                await self._configure(request, name, member)
            elif delete:
                await self.call(request, delete, {"Bucket": name})
            else:
                put = _CONFIGURATIONS[member][0]
                await self.call(request, put, {"Bucket": name, parameter: _EMPTY[member]})
        if request.changed("AccessControl"):
            acl = request.properties.get("AccessControl", "Private")
            await self.call(request, "PutBucketAcl", {"Bucket": name, "ACL": _CANNED.get(acl, acl)})
        if request.changed("Tags"):
            await self._tag(request, name)
        return Resource(name, self._attributes(request, name))

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the bucket, which must be empty, as on AWS."""
        await self.call(request, "DeleteBucket", {"Bucket": request.physical_id})

    async def _configure(self, request: ResourceRequest, name: str, member: str) -> None:
        put, _, parameter = _CONFIGURATIONS[member]
        value = request.properties[member]
        if member in _TRANSLATIONS:
            value = _TRANSLATIONS[member](value)
        await self.call(request, put, {"Bucket": name, parameter: value})

    async def _tag(self, request: ResourceRequest, name: str) -> None:
        own = {str(tag["Key"]): str(tag["Value"]) for tag in request.properties.get("Tags") or []}
        tags = {**request.stack.tags, **own}
        if tags:
            tag_set = [{"Key": key, "Value": value} for key, value in tags.items()]
            await self.call(request, "PutBucketTagging", {"Bucket": name, "Tagging": {"TagSet": tag_set}})
        elif request.previous.get("Tags"):
            await self.call(request, "DeleteBucketTagging", {"Bucket": name})

    def _attributes(self, request: ResourceRequest, name: str) -> dict[str, str]:
        region = request.stack.region
        return {
            "Arn": f"arn:aws:s3:::{name}",
            "DomainName": f"{name}.s3.amazonaws.com",
            "DualStackDomainName": f"{name}.s3.dualstack.{region}.amazonaws.com",
            "RegionalDomainName": f"{name}.s3.{region}.amazonaws.com",
            "WebsiteURL": f"http://{name}.s3-website-{region}.amazonaws.com",
        }


class BucketPolicy(ApiResource):
    """AWS::S3::BucketPolicy."""

    service = "s3"
    replaced_by = frozenset(["Bucket"])
    renamed: ClassVar[Mapping[str, str]] = {"PolicyDocument": "Policy"}

    async def create(self, request: ResourceRequest) -> Resource:
        """Set the policy of a bucket."""
        await self.call(request, "PutBucketPolicy", request.properties)
        return Resource(str(request.properties["Bucket"]))

    async def update(self, request: ResourceRequest) -> Resource:
        """Replace the policy."""
        return await self.create(request)

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the policy."""
        await self.call(request, "DeleteBucketPolicy", {"Bucket": request.physical_id})


def _encryption(value: Mapping[str, Any]) -> dict[str, Any]:
    rules = []
    for rule in value.get("ServerSideEncryptionConfiguration", []):
        api = dict(rule)
        default = api.pop("ServerSideEncryptionByDefault", None)
        if default is not None:
            api["ApplyServerSideEncryptionByDefault"] = default
        rules.append(api)
    return {"Rules": rules}


def _lifecycle(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"Rules": [_lifecycle_rule(rule) for rule in value.get("Rules", [])]}


def _lifecycle_rule(rule: Mapping[str, Any]) -> dict[str, Any]:
    given = dict(rule)
    api: dict[str, Any] = {"Status": given.pop("Status")}
    if "Id" in given:
        api["ID"] = given.pop("Id")
    filters: dict[str, Any] = {
        name: given.pop(name) for name in ("Prefix", "ObjectSizeGreaterThan", "ObjectSizeLessThan") if name in given
    }
    tags = given.pop("TagFilters", [])
    if len(filters) + len(tags) > 1:
        api["Filter"] = {"And": {**filters, **({"Tags": tags} if tags else {})}}
    elif tags:
        api["Filter"] = {"Tag": tags[0]}
    else:
        api["Filter"] = filters or {"Prefix": ""}
    expiration = {
        target: given.pop(name)
        for name, target in {
            "ExpirationInDays": "Days",
            "ExpirationDate": "Date",
            "ExpiredObjectDeleteMarker": "ExpiredObjectDeleteMarker",
        }.items()
        if name in given
    }
    if expiration:
        api["Expiration"] = expiration
    if "NoncurrentVersionExpirationInDays" in given:
        api["NoncurrentVersionExpiration"] = {"NoncurrentDays": given.pop("NoncurrentVersionExpirationInDays")}
    for name in ("Transition", "NoncurrentVersionTransition"):
        if name in given:
            given[f"{name}s"] = [given.pop(name)]
    for name, days in (("Transitions", "Days"), ("NoncurrentVersionTransitions", "NoncurrentDays")):
        if name in given:
            renamed = {"TransitionInDays": days, "TransitionDate": "Date"}
            api[name] = [
                {renamed.get(member, member): item for member, item in transition.items()}
                for transition in given.pop(name)
            ]
    return {**api, **given}


def _cors(value: Mapping[str, Any]) -> dict[str, Any]:
    renamed = {"ExposedHeaders": "ExposeHeaders", "MaxAge": "MaxAgeSeconds", "Id": "ID"}
    rules = value.get("CorsRules", [])
    return {"CORSRules": [{renamed.get(name, name): item for name, item in rule.items()} for rule in rules]}


def _logging(value: Mapping[str, Any]) -> dict[str, Any]:
    if not value.get("DestinationBucketName"):
        return {}
    renamed = {"DestinationBucketName": "TargetBucket", "LogFilePrefix": "TargetPrefix"}
    api = {renamed.get(name, name): item for name, item in value.items()}
    return {"LoggingEnabled": {"TargetPrefix": "", **api}}


def _website(value: Mapping[str, Any]) -> dict[str, Any]:
    api = dict(value)
    if "IndexDocument" in api:
        api["IndexDocument"] = {"Suffix": api["IndexDocument"]}
    if "ErrorDocument" in api:
        api["ErrorDocument"] = {"Key": api["ErrorDocument"]}
    if "RoutingRules" in api:
        api["RoutingRules"] = [
            {
                {"RedirectRule": "Redirect", "RoutingRuleCondition": "Condition"}.get(name, name): item
                for name, item in rule.items()
            }
            for rule in api["RoutingRules"]
        ]
    return api


def _accelerate(value: Mapping[str, Any]) -> dict[str, Any]:
    return {"Status": value.get("AccelerationStatus")}


def _notification(value: Mapping[str, Any]) -> dict[str, Any]:
    api: dict[str, Any] = {}
    targets = {
        "LambdaConfigurations": ("LambdaFunctionConfigurations", "Function", "LambdaFunctionArn"),
        "QueueConfigurations": ("QueueConfigurations", "Queue", "QueueArn"),
        "TopicConfigurations": ("TopicConfigurations", "Topic", "TopicArn"),
    }
    for name, (parameter, target, arn) in targets.items():
        if value.get(name):
            api[parameter] = [
                {
                    "Events": [item["Event"]],
                    arn: item[target],
                    **(
                        {"Filter": {"Key": {"FilterRules": item["Filter"]["S3Key"]["Rules"]}}}
                        if "Filter" in item
                        else {}
                    ),
                }
                for item in value[name]
            ]
    bridge = value.get("EventBridgeConfiguration")
    if bridge is not None and str(bridge.get("EventBridgeEnabled", True)).lower() == "true":
        api["EventBridgeConfiguration"] = {}
    return api


_TRANSLATIONS = {
    "AccelerateConfiguration": _accelerate,
    "BucketEncryption": _encryption,
    "CorsConfiguration": _cors,
    "LifecycleConfiguration": _lifecycle,
    "LoggingConfiguration": _logging,
    "NotificationConfiguration": _notification,
    "WebsiteConfiguration": _website,
}

TYPES: Mapping[str, type[ApiResource]] = {"AWS::S3::Bucket": Bucket, "AWS::S3::BucketPolicy": BucketPolicy}
