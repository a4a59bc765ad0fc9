"""Lambda's REST API: what belongs to a function besides its code: versions, aliases, reservations, permissions, tags.

Shapes: https://docs.aws.amazon.com/lambda/latest/api/API_Operations.html
"""

import json
from http import HTTPStatus
from typing import Any

from aiohttp import web

from emulator.aws.lambda_.core.constraints import Constraints, invalid
from emulator.aws.lambda_.core.function_registry import FunctionRegistry
from emulator.aws.lambda_.core.models import Reference, function_arn
from emulator.aws.lambda_.http.requests import answer, answered, nothing, page, read_json, tags_of
from emulator.errors import ApiError

FUNCTIONS = "/2015-03-31/functions"
_RESERVATIONS = range(1_000_000)


class LambdaVersionsApi:
    """These operations, over HTTP.

    Parameters
    ----------
    functions
        The functions that exist.
    """

    def __init__(self, functions: FunctionRegistry) -> None:
        self._functions = functions

    def routes(self) -> list[web.AbstractRouteDef]:
        """Return the operations' routes."""
        one = FUNCTIONS + "/{name}"
        concurrency = "/2017-10-31/functions/{name}/concurrency"
        tags = "/2017-03-31/tags/{name}"
        return [
            web.get(one + "/versions", answered(self._list_versions)),
            web.post(one + "/versions", answered(self._publish)),
            web.post(one + "/aliases", answered(self._create_alias)),
            web.get(one + "/aliases", answered(self._list_aliases)),
            web.get(one + "/aliases/{alias}", answered(self._get_alias)),
            web.put(one + "/aliases/{alias}", answered(self._update_alias)),
            web.delete(one + "/aliases/{alias}", answered(self._delete_alias)),
            web.put(concurrency, answered(self._reserve)),
            web.delete(concurrency, answered(self._take_reservation_back)),
            web.get("/2019-09-30/functions/{name}/concurrency", answered(self._get_reservation)),
            web.post(one + "/policy", answered(self._add_permission)),
            web.get(one + "/policy", answered(self._get_policy)),
            web.delete(one + "/policy/{statement}", answered(self._remove_permission)),
            web.get(tags, answered(self._list_tags)),
            web.post(tags, answered(self._tag)),
            web.delete(tags, answered(self._untag)),
        ]

    async def _list_versions(self, request: web.Request) -> web.StreamResponse:
        versions = self._functions.versions(request.match_info["name"])
        return page(request, "Versions", [version.to_api() for version in versions])

    async def _publish(self, request: web.Request) -> web.StreamResponse:
        body = await read_json(request)
        published = self._functions.publish(
            request.match_info["name"],
            description=body.get("Description"),
            code_sha256=body.get("CodeSha256"),
            revision_id=body.get("RevisionId"),
        )
        return answer(published.to_api(), HTTPStatus.CREATED)

    async def _create_alias(self, request: web.Request) -> web.StreamResponse:
        body, name = await read_json(request), request.match_info["name"]
        _refuse_routing(body)
        alias = self._functions.create_alias(
            name, str(body.get("Name")), str(body.get("FunctionVersion")), str(body.get("Description") or "")
        )
        return answer(alias.to_api(Reference.parse(name).name), HTTPStatus.CREATED)

    async def _list_aliases(self, request: web.Request) -> web.StreamResponse:
        name, version = request.match_info["name"], request.query.get("FunctionVersion")
        aliases = [alias for alias in self._functions.aliases(name) if version in (None, alias.version)]
        return page(request, "Aliases", [alias.to_api(Reference.parse(name).name) for alias in aliases])

    async def _get_alias(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["name"]
        return answer(self._functions.alias(name, request.match_info["alias"]).to_api(Reference.parse(name).name))

    async def _update_alias(self, request: web.Request) -> web.StreamResponse:
        body, name = await read_json(request), request.match_info["name"]
        _refuse_routing(body)
        changes = {member: body.get(member) for member in ("FunctionVersion", "Description")}
        given = Constraints({member: value for member, value in changes.items() if value is not None})
        alias = self._functions.update_alias(
            name,
            request.match_info["alias"],
            version=given.text("FunctionVersion", "") or None,
            description=given.text("Description", "") if changes["Description"] is not None else None,
            revision_id=body.get("RevisionId"),
        )
        return answer(alias.to_api(Reference.parse(name).name))

    async def _delete_alias(self, request: web.Request) -> web.StreamResponse:
        self._functions.delete_alias(request.match_info["name"], request.match_info["alias"])
        return nothing()

    async def _reserve(self, request: web.Request) -> web.StreamResponse:
        given = Constraints(await read_json(request))
        value = given.number("ReservedConcurrentExecutions", -1, _RESERVATIONS)
        given.check()
        self._functions.reserve(request.match_info["name"], value)
        return answer({"ReservedConcurrentExecutions": value})

    async def _take_reservation_back(self, request: web.Request) -> web.StreamResponse:
        self._functions.reserve(request.match_info["name"], None)
        return nothing()

    async def _get_reservation(self, request: web.Request) -> web.StreamResponse:
        reserved = self._functions.reserved(self._functions.get(request.match_info["name"]).spec.name)
        return answer({} if reserved is None else {"ReservedConcurrentExecutions": reserved})

    async def _add_permission(self, request: web.Request) -> web.StreamResponse:
        body, name = await read_json(request), request.match_info["name"]
        policy = self._functions.policy(name)
        given = Constraints(body)
        statement_id = given.text("StatementId", pattern="[a-zA-Z0-9-_]+", longest=100)
        action, principal = given.text("Action"), given.text("Principal")
        given.check()
        if statement_id in policy:
            raise ApiError(
                "ResourceConflictException",
                HTTPStatus.CONFLICT,
                f"The statement id ({statement_id}) provided already exists. "
                "Please provide a new statement id, or remove the existing statement.",
            )
        statement = {
            "Sid": statement_id,
            "Effect": "Allow",
            "Principal": {"Service" if principal.endswith(".amazonaws.com") else "AWS": principal},
            "Action": action,
            "Resource": function_arn(Reference.parse(name).name),
        }
        if "SourceArn" in body:
            statement["Condition"] = {"ArnLike": {"AWS:SourceArn": body["SourceArn"]}}
        self._functions.set_policy(name, {**policy, statement_id: statement})
        return answer({"Statement": json.dumps(statement)}, HTTPStatus.CREATED)

    async def _get_policy(self, request: web.Request) -> web.StreamResponse:
        function = self._functions.get(request.match_info["name"])
        policy = self._functions.policy(function.spec.name)
        if not policy:
            raise _no_resource()
        document = {"Version": "2012-10-17", "Id": "default", "Statement": list(policy.values())}
        return answer({"Policy": json.dumps(document), "RevisionId": function.revision_id})

    async def _remove_permission(self, request: web.Request) -> web.StreamResponse:
        policy = self._functions.policy(request.match_info["name"])
        if policy.pop(request.match_info["statement"], None) is None:
            raise _no_resource()
        self._functions.set_policy(request.match_info["name"], policy)
        return nothing()

    async def _list_tags(self, request: web.Request) -> web.StreamResponse:
        return answer({"Tags": self._functions.tags(request.match_info["name"])})

    async def _tag(self, request: web.Request) -> web.StreamResponse:
        tags, name = tags_of(await read_json(request)), request.match_info["name"]
        self._functions.set_tags(name, {**self._functions.tags(name), **tags})
        return nothing()

    async def _untag(self, request: web.Request) -> web.StreamResponse:
        name, gone = request.match_info["name"], request.query.getall("tagKeys", [])
        kept = {key: value for key, value in self._functions.tags(name).items() if key not in gone}
        self._functions.set_tags(name, kept)
        return nothing()


def _refuse_routing(body: dict[str, Any]) -> None:
    if body.get("RoutingConfig"):
        raise invalid("RoutingConfig: aliases that share invocations between versions are not emulated")


def _no_resource() -> ApiError:
    message = "The resource you requested does not exist."
    return ApiError("ResourceNotFoundException", HTTPStatus.NOT_FOUND, message)
