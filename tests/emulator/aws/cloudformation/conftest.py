"""Stacks of a running cloud."""

import json
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

_ENDS = ("_COMPLETE", "_FAILED")


class StackTools:
    """Deploys templates, and waits for their ends."""

    def __init__(self, cloudformation: Any) -> None:
        self.api = cloudformation
        self.created: list[str] = []

    def name(self) -> str:
        """Return a new name."""
        return f"test-{uuid.uuid4().hex[:8]}"

    def create(self, template: Any, name: str | None = None, **settings: Any) -> dict[str, Any]:
        """Create a stack, and return its description at the end."""
        text = template if isinstance(template, str) else json.dumps(template)
        stack_id = self.api.create_stack(StackName=name or self.name(), TemplateBody=text, **settings)["StackId"]
        self.created.append(stack_id)
        return self.ended(stack_id)

    def update(self, stack_id: str, template: Any, **settings: Any) -> dict[str, Any]:
        """Update a stack, and return its description at the end."""
        text = template if isinstance(template, str) else json.dumps(template)
        self.api.update_stack(StackName=stack_id, TemplateBody=text, **settings)
        return self.ended(stack_id)

    def delete(self, stack_id: str, **settings: Any) -> dict[str, Any]:
        """Delete a stack, and return its description at the end."""
        self.api.delete_stack(StackName=stack_id, **settings)
        return self.ended(stack_id)

    def ended(self, stack_id: str) -> dict[str, Any]:
        """Wait for the end of an operation; return the stack's description."""
        while True:
            stack = self.api.describe_stacks(StackName=stack_id)["Stacks"][0]
            status = stack["StackStatus"]
            if status.endswith(_ENDS) and not status.endswith("CLEANUP_IN_PROGRESS"):
                outputs = stack.get("Outputs", [])
                return {**stack, "Values": {output["OutputKey"]: output["OutputValue"] for output in outputs}}

    def events(self, stack_id: str) -> list[tuple[str, str]]:
        """Return the logical ids and statuses of a stack's events, oldest first."""
        pages = self.api.get_paginator("describe_stack_events").paginate(StackName=stack_id)
        events = [event for page in pages for event in page["StackEvents"]]
        return [(event["LogicalResourceId"], event["ResourceStatus"]) for event in reversed(events)]

    def reasons(self, stack_id: str) -> str:
        """Return the reasons of failures."""
        events = self.api.describe_stack_events(StackName=stack_id)["StackEvents"]
        return "\n".join(
            event.get("ResourceStatusReason", "") for event in events if event["ResourceStatus"].endswith("FAILED")
        )

    def physical_ids(self, stack_id: str) -> dict[str, str]:
        """Return the physical ids by logical id."""
        resources = self.api.describe_stack_resources(StackName=stack_id)["StackResources"]
        return {resource["LogicalResourceId"]: resource.get("PhysicalResourceId", "") for resource in resources}


@pytest.fixture(scope="module")
def cloudformation(client: Callable[[str], Any]) -> Any:
    return client("cloudformation")


@pytest.fixture
def stacks(cloudformation: Any) -> Iterator[StackTools]:
    tools = StackTools(cloudformation)
    yield tools
    for stack_id in reversed(tools.created):
        cloudformation.update_termination_protection(StackName=stack_id, EnableTerminationProtection=False)
        tools.delete(stack_id)
