"""A deployment that changes nothing: what exists is read, and all else is answered as if it had been made."""

from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from emulator.fmi.aws_calls import Answer, AwsCall, answer_changes
from emulator.fmi.aws_session import AwsSession
from emulator.fmi.deployment.deploy import Reporter
from emulator.fmi.deployment.stack import OWNER_TAG, StackEvent

_NOT_FOUND = Answer({"Error": {"Code": "404", "Message": "Not Found"}}, 404)
# The outputs of a stack whose bucket and secrets have been made.
_OUTPUTS = ("Bucket", "RendezvousSecret", "RendezvousKey", "Repository")


class DryReporter(Reporter):
    """Agrees to everything, and prints no states of resources: nothing is made."""

    def __init__(self, note: Callable[[str], None]) -> None:
        super().__init__(note, lambda _: True)

    def on_event(self, event: StackEvent) -> None:
        """Print nothing."""


class DryDaemon:
    """Pushes no image."""

    def __init__(self, architecture: str) -> None:
        self._architecture = architecture

    def image_architecture(self, reference: str) -> str:
        """Return the architecture of the image, which was read before."""
        return self._architecture

    def push(self, reference: str, target: str, user: str, password: str, on_progress: Callable[[str], None]) -> str:
        """Print what would be pushed; return a digest."""
        on_progress(f"  docker push {target}")
        return "sha256:of-the-pushed-image"


class ImaginedStack:
    """Answers for a stack as if the change sets that were made for it had been applied.

    Parameters
    ----------
    session
        Reads what exists.
    name
        The stack's name.
    """

    def __init__(self, session: AwsSession, name: str) -> None:
        self._cloudformation = session.client("cloudformation")
        self._name = name
        self._parameters: list[dict[str, str]] = []
        self._is_new = False
        self._applied = 0

    def answer(self, call: AwsCall) -> Answer | None:
        """Return the answer to a call; None for one that is made."""
        if call.operation == "CreateChangeSet":
            self._parameters = call.parameters["Parameters"]
            self._is_new = self._is_new or call.parameters["ChangeSetType"] == "CREATE"
        elif call.operation == "DescribeChangeSet":
            change = {"Action": "Modify", "LogicalResourceId": self._name, "ResourceType": "AWS::CloudFormation::Stack"}
            return Answer({"Status": "CREATE_COMPLETE", "Changes": [{"ResourceChange": change}]})
        elif call.operation == "ExecuteChangeSet":
            self._applied += 1
        elif call.operation == "DescribeStackEvents" and (self._applied or self._is_new):
            return Answer({"StackEvents": [self._event(number) for number in range(self._applied)]})
        elif call.operation == "DescribeStacks" and self._applied:
            return Answer({"Stacks": [self._stack()]})
        elif call.operation == "DescribeSecret" and self._is_new:
            return Answer({})
        elif call.operation == "HeadObject" and self._is_new:
            return _NOT_FOUND
        return answer_changes(call)

    def _event(self, number: int) -> dict[str, str]:
        return {"EventId": str(number), "LogicalResourceId": self._name, "ResourceStatus": "UPDATE_COMPLETE"}

    def _stack(self) -> dict[str, Any]:
        """Return what exists of the stack, with the outputs that it would have."""
        try:
            found: dict[str, Any] = self._cloudformation.describe_stacks(StackName=self._name)["Stacks"][0]
        except ClientError:
            found = {"StackName": self._name, "Tags": [{"Key": OWNER_TAG, "Value": ""}]}
        known = {output["OutputKey"] for output in found.get("Outputs", [])}
        imagined = [
            {"OutputKey": name, "OutputValue": f"{self._name}-{name.lower()}"} for name in _OUTPUTS if name not in known
        ]
        outputs = [*found.get("Outputs", []), *imagined]
        return {**found, "StackStatus": "UPDATE_COMPLETE", "Parameters": self._parameters, "Outputs": outputs}
