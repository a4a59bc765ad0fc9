"""AWS::IAM: roles, policies, instance profiles, users.

Properties: https://docs.aws.amazon.com/AWSCloudFormation/latest/TemplateReference/AWS_IAM.html
"""

from collections.abc import Iterable, Mapping
from typing import Any

from botocore.exceptions import ClientError

from emulator.aws.cloudformation.deployment_errors import is_gone
from emulator.aws.cloudformation.resource import Resource, ResourceRequest
from emulator.aws.cloudformation.types.api import ApiResource, tag_list

_Parameters = Mapping[str, Any]


class _Principal(ApiResource):
    """A role, a user or a group: a name with managed and inline policies."""

    service = "iam"
    kind: str

    def _key(self, name: str) -> dict[str, str]:
        return {f"{self.kind}Name": name}

    async def _set_policies(self, request: ResourceRequest, name: str) -> None:
        """Attach and detach managed policies, put and delete inline ones, as far as they change."""
        properties, previous = request.properties, request.previous
        before, after = set(previous.get("ManagedPolicyArns") or []), set(properties.get("ManagedPolicyArns") or [])
        for arn in sorted(after - before):
            await self.call(request, f"Attach{self.kind}Policy", {**self._key(name), "PolicyArn": arn})
        for arn in sorted(before - after):
            await self.call(request, f"Detach{self.kind}Policy", {**self._key(name), "PolicyArn": arn})
        inline = {
            policy["PolicyName"]: _document(policy["PolicyDocument"]) for policy in properties.get("Policies") or []
        }
        for policy, document in inline.items():
            put = {**self._key(name), "PolicyName": policy, "PolicyDocument": document}
            await self.call(request, f"Put{self.kind}Policy", put)
        for policy in previous.get("Policies") or []:
            if policy["PolicyName"] not in inline:
                gone = {**self._key(name), "PolicyName": policy["PolicyName"]}
                await self.call(request, f"Delete{self.kind}Policy", gone)

    async def _remove_policies(self, request: ResourceRequest, name: str) -> None:
        attached = await self.call(request, f"ListAttached{self.kind}Policies", self._key(name))
        for policy in attached["AttachedPolicies"]:
            gone = {**self._key(name), "PolicyArn": policy["PolicyArn"]}
            await self.call(request, f"Detach{self.kind}Policy", gone)
        for policy in (await self.call(request, f"List{self.kind}Policies", self._key(name)))["PolicyNames"]:
            await self.call(request, f"Delete{self.kind}Policy", {**self._key(name), "PolicyName": policy})

    async def _created(self, request: ResourceRequest, name: str) -> None:
        """Add what a new principal needs; delete it if that fails, because a failed resource has no id."""
        try:
            await self._set_policies(request, name)
        except Exception:
            await self._remove_policies(request, name)
            await self.call(request, f"Delete{self.kind}", self._key(name))
            raise


class Role(_Principal):
    """AWS::IAM::Role."""

    kind = "Role"
    replaced_by = frozenset(["RoleName", "Path"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a role with its policies."""
        properties = {key: value for key, value in request.properties.items() if key not in _POLICIES}
        name = str(properties.setdefault("RoleName", request.generated_name()))
        properties["Tags"] = tag_list(request)
        role = (await self.call(request, "CreateRole", properties))["Role"]
        await self._created(request, name)
        return Resource(name, {"Arn": role["Arn"], "RoleId": role["RoleId"]})

    async def update(self, request: ResourceRequest) -> Resource:
        """Change trust, description, duration, policies and tags."""
        name, properties = request.physical_id, request.properties
        if request.changed("AssumeRolePolicyDocument"):
            trust = {"RoleName": name, "PolicyDocument": properties["AssumeRolePolicyDocument"]}
            await self.call(request, "UpdateAssumeRolePolicy", trust)
        if request.changed("Description", "MaxSessionDuration"):
            changed = {member: properties.get(member) for member in ("Description", "MaxSessionDuration")}
            await self.call(request, "UpdateRole", {"RoleName": name, **changed})
        if request.changed("PermissionsBoundary"):
            boundary = properties.get("PermissionsBoundary")
            operation = "PutRolePermissionsBoundary" if boundary else "DeleteRolePermissionsBoundary"
            await self.call(request, operation, {"RoleName": name, "PermissionsBoundary": boundary})
        if request.changed("Tags") and properties.get("Tags"):
            await self.call(request, "TagRole", {"RoleName": name, "Tags": tag_list(request)})
        await self._set_policies(request, name)
        return request.current or Resource(name)

    async def delete(self, request: ResourceRequest) -> None:
        """Delete a role and its policies."""
        await self._remove_policies(request, request.physical_id)
        await self.call(request, "DeleteRole", {"RoleName": request.physical_id})


class User(_Principal):
    """AWS::IAM::User."""

    kind = "User"
    replaced_by = frozenset(["UserName", "Path", "Groups", "LoginProfile", "PermissionsBoundary", "Tags"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a user with its policies."""
        others = (*_POLICIES, "Groups", "LoginProfile")
        properties = {key: value for key, value in request.properties.items() if key not in others}
        name = str(properties.setdefault("UserName", request.generated_name()))
        user = (await self.call(request, "CreateUser", properties))["User"]
        await self._created(request, name)
        for group in request.properties.get("Groups") or []:
            await self.call(request, "AddUserToGroup", {"UserName": name, "GroupName": group})
        if "LoginProfile" in request.properties:
            profile = {"UserName": name, **request.properties["LoginProfile"]}
            await self.call(request, "CreateLoginProfile", profile)
        return Resource(name, {"Arn": user["Arn"]})

    async def update(self, request: ResourceRequest) -> Resource:
        """Change the policies."""
        await self._set_policies(request, request.physical_id)
        return request.current or Resource("")

    async def delete(self, request: ResourceRequest) -> None:
        """Delete a user, its policies and its memberships."""
        name = request.physical_id
        await self._remove_policies(request, name)
        for group in (await self.call(request, "ListGroupsForUser", {"UserName": name}))["Groups"]:
            await self.call(request, "RemoveUserFromGroup", {"UserName": name, "GroupName": group["GroupName"]})
        if "LoginProfile" in request.properties:
            await self.call(request, "DeleteLoginProfile", {"UserName": name})
        await self.call(request, "DeleteUser", {"UserName": name})


class Group(_Principal):
    """AWS::IAM::Group."""

    kind = "Group"
    replaced_by = frozenset(["GroupName", "Path"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a group with its policies."""
        properties = {key: value for key, value in request.properties.items() if key not in _POLICIES}
        name = str(properties.setdefault("GroupName", request.generated_name()))
        group = (await self.call(request, "CreateGroup", properties))["Group"]
        await self._created(request, name)
        return Resource(name, {"Arn": group["Arn"]})

    async def update(self, request: ResourceRequest) -> Resource:
        """Change the policies."""
        await self._set_policies(request, request.physical_id)
        return request.current or Resource("")

    async def delete(self, request: ResourceRequest) -> None:
        """Delete a group and its policies."""
        await self._remove_policies(request, request.physical_id)
        await self.call(request, "DeleteGroup", {"GroupName": request.physical_id})


class AccessKey(ApiResource):
    """AWS::IAM::AccessKey."""

    service = "iam"
    replaced_by = frozenset(["UserName", "Serial"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a key."""
        key = (await self.call(request, "CreateAccessKey", {"UserName": request.properties["UserName"]}))["AccessKey"]
        made = Resource(key["AccessKeyId"], {"SecretAccessKey": key["SecretAccessKey"]})
        await self._set_status(request, made.physical_id)
        return made

    async def update(self, request: ResourceRequest) -> Resource:
        """Change the key's status."""
        await self._set_status(request, request.physical_id)
        return request.current or Resource("")

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the key."""
        await self.call(request, "DeleteAccessKey", self._key(request, request.physical_id))

    def _key(self, request: ResourceRequest, key_id: str) -> dict[str, Any]:
        return {"UserName": request.properties["UserName"], "AccessKeyId": key_id}

    async def _set_status(self, request: ResourceRequest, key_id: str) -> None:
        if "Status" in request.properties:
            changed = {**self._key(request, key_id), "Status": request.properties["Status"]}
            await self.call(request, "UpdateAccessKey", changed)


class ManagedPolicy(ApiResource):
    """AWS::IAM::ManagedPolicy."""

    service = "iam"
    replaced_by = frozenset(["ManagedPolicyName", "Path", "Description"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a policy and attach it."""
        properties = request.properties
        made = await self.call(
            request,
            "CreatePolicy",
            {
                "PolicyName": properties.get("ManagedPolicyName") or request.generated_name(128),
                "PolicyDocument": _document(properties["PolicyDocument"]),
                "Path": properties.get("Path"),
                "Description": properties.get("Description"),
            },
        )
        arn = made["Policy"]["Arn"]
        await self._attach(request, arn)
        return Resource(arn, {"PolicyArn": arn, "Arn": arn})

    async def update(self, request: ResourceRequest) -> Resource:
        """Make a new default version of the policy, and change who has it."""
        arn = request.physical_id
        if request.changed("PolicyDocument"):
            versions = (await self.call(request, "ListPolicyVersions", {"PolicyArn": arn}))["Versions"]
            for version in versions:
                # AWS keeps five versions at most.
                if not version["IsDefaultVersion"]:
                    gone = {"PolicyArn": arn, "VersionId": version["VersionId"]}
                    await self.call(request, "DeletePolicyVersion", gone)
            document = {
                "PolicyArn": arn,
                "PolicyDocument": _document(request.properties["PolicyDocument"]),
                "SetAsDefault": True,
            }
            await self.call(request, "CreatePolicyVersion", document)
        await self._attach(request, arn)
        return request.current or Resource(arn)

    async def delete(self, request: ResourceRequest) -> None:
        """Detach the policy from all, and delete it."""
        arn = request.physical_id
        entities = await self.call(request, "ListEntitiesForPolicy", {"PolicyArn": arn})
        for kind in ("Role", "User", "Group"):
            for entity in entities.get(f"Policy{kind}s", []):
                key = {f"{kind}Name": entity[f"{kind}Name"], "PolicyArn": arn}
                await self.call(request, f"Detach{kind}Policy", key)
        for version in (await self.call(request, "ListPolicyVersions", {"PolicyArn": arn}))["Versions"]:
            if not version["IsDefaultVersion"]:
                await self.call(request, "DeletePolicyVersion", {"PolicyArn": arn, "VersionId": version["VersionId"]})
        await self.call(request, "DeletePolicy", {"PolicyArn": arn})

    async def _attach(self, request: ResourceRequest, arn: str) -> None:
        for kind, name in _principals(request.properties) - _principals(request.previous):
            await self.call(request, f"Attach{kind}Policy", {f"{kind}Name": name, "PolicyArn": arn})
        for kind, name in _principals(request.previous) - _principals(request.properties):
            await self.call(request, f"Detach{kind}Policy", {f"{kind}Name": name, "PolicyArn": arn})


class Policy(ApiResource):
    """AWS::IAM::Policy: an inline policy of several principals. Also RolePolicy, UserPolicy and GroupPolicy."""

    service = "iam"
    replaced_by = frozenset(["PolicyName"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Put the policy."""
        await self._put(request, _principals(request.properties))
        return Resource(str(request.properties["PolicyName"]))

    async def update(self, request: ResourceRequest) -> Resource:
        """Put the changed policy, and delete it where it is not wanted any more."""
        await self._put(request, _principals(request.properties))
        await self._remove(request, _principals(request.previous) - _principals(request.properties))
        return request.current or Resource("")

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the policy."""
        await self._remove(request, _principals(request.properties))

    async def _put(self, request: ResourceRequest, principals: Iterable[tuple[str, str]]) -> None:
        document = _document(request.properties["PolicyDocument"])
        policy = {"PolicyName": request.properties["PolicyName"], "PolicyDocument": document}
        for kind, name in principals:
            await self.call(request, f"Put{kind}Policy", {f"{kind}Name": name, **policy})

    async def _remove(self, request: ResourceRequest, principals: Iterable[tuple[str, str]]) -> None:
        for kind, name in principals:
            key = {f"{kind}Name": name, "PolicyName": request.properties["PolicyName"]}
            try:
                await self.call(request, f"Delete{kind}Policy", key)
            except ClientError as error:
                # The principal, or its policy, may be gone.
                if not is_gone(error):
                    raise


class InstanceProfile(ApiResource):
    """AWS::IAM::InstanceProfile."""

    service = "iam"
    replaced_by = frozenset(["InstanceProfileName", "Path"])

    async def create(self, request: ResourceRequest) -> Resource:
        """Create a profile with its role."""
        name = request.properties.get("InstanceProfileName") or request.generated_name(128)
        key = {"InstanceProfileName": name}
        made = await self.call(request, "CreateInstanceProfile", {**key, "Path": request.properties.get("Path")})
        for role in request.properties.get("Roles") or []:
            await self.call(request, "AddRoleToInstanceProfile", {**key, "RoleName": role})
        return Resource(str(name), {"Arn": made["InstanceProfile"]["Arn"]})

    async def update(self, request: ResourceRequest) -> Resource:
        """Change the role."""
        key = {"InstanceProfileName": request.physical_id}
        for role in request.previous.get("Roles") or []:
            await self.call(request, "RemoveRoleFromInstanceProfile", {**key, "RoleName": role})
        for role in request.properties.get("Roles") or []:
            await self.call(request, "AddRoleToInstanceProfile", {**key, "RoleName": role})
        return request.current or Resource("")

    async def delete(self, request: ResourceRequest) -> None:
        """Delete the profile."""
        key = {"InstanceProfileName": request.physical_id}
        for role in (await self.call(request, "GetInstanceProfile", key))["InstanceProfile"]["Roles"]:
            await self.call(request, "RemoveRoleFromInstanceProfile", {**key, "RoleName": role["RoleName"]})
        await self.call(request, "DeleteInstanceProfile", key)


def _document(document: Any) -> Any:
    """Return a policy with a version, which AWS does not require and moto does."""
    if isinstance(document, Mapping) and "Version" not in document:
        return {"Version": "2012-10-17", **document}
    return document


_POLICIES = ("ManagedPolicyArns", "Policies")


def _principals(properties: _Parameters) -> set[tuple[str, str]]:
    """Return kind and name of the principals that a policy's properties name."""
    found = {(kind, str(name)) for kind in ("Role", "User", "Group") for name in properties.get(f"{kind}s") or []}
    return found | {
        (kind, str(properties[f"{kind}Name"])) for kind in ("Role", "User", "Group") if f"{kind}Name" in properties
    }


TYPES: Mapping[str, type[ApiResource]] = {
    "AWS::IAM::AccessKey": AccessKey,
    "AWS::IAM::Group": Group,
    "AWS::IAM::GroupPolicy": Policy,
    "AWS::IAM::InstanceProfile": InstanceProfile,
    "AWS::IAM::ManagedPolicy": ManagedPolicy,
    "AWS::IAM::Policy": Policy,
    "AWS::IAM::Role": Role,
    "AWS::IAM::RolePolicy": Policy,
    "AWS::IAM::User": User,
    "AWS::IAM::UserPolicy": Policy,
}
