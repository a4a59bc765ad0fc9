"""What a run needs to know of a deployed stack."""

from collections.abc import Mapping
from dataclasses import dataclass

from emulator.fmi.aws_session import AwsSession
from emulator.fmi.deployment.stack import StackError, StackOperations


@dataclass(frozen=True)
class StackResources:
    """The parts of a stack that runs use.

    Parameters
    ----------
    stack
        The stack's name.
    bucket
        Bucket of code, data, run records and results.
    state_machine
        ARN of the state machine.
    initialize, execute, summarize
        Names of the functions.
    cluster, service
        Names of the rendezvous server's cluster and service.
    balancer
        ARN of the load balancer in front of the server; or empty.
    dns_name
        The name that is kept at the server's address; or empty.
    memory_mb, timeout_s
        Memory (MB) and time limit (s) of a rank.
    architecture, python
        Processor architecture and version of Python; the version is empty if the functions run an image.
    code_key
        Key of the functions' archive; empty if they run an image.
    data_bucket
        Another bucket that the functions may read; or empty.
    """

    stack: str
    bucket: str
    state_machine: str
    initialize: str
    execute: str
    summarize: str
    cluster: str
    service: str
    balancer: str
    dns_name: str
    memory_mb: int
    timeout_s: int
    architecture: str
    python: str
    code_key: str
    data_bucket: str

    @property
    def functions(self) -> tuple[str, str, str]:
        """The names of the functions, in the order in which a run invokes them."""
        return self.initialize, self.execute, self.summarize


def find_resources(session: AwsSession, stack_name: str) -> StackResources:
    """Return the resources of a stack.

    Raises
    ------
    StackError
        If the stack does not exist, is another owner's, or is not complete.
    """
    stack = StackOperations(session.client("cloudformation"), stack_name).own()
    region = session.session.region_name
    if stack is None:
        raise StackError(
            f"stack {stack_name!r} does not exist in {region}: run `fmi-emulator deploy --region {region} --stack-name "
            f"{stack_name}` first, or check --region, --aws-profile and --stack-name"
        )
    missing = [name for name in ("StateMachine", "Cluster", "Service") if name not in stack.outputs]
    if missing:
        raise StackError(
            f"stack {stack_name!r} is {stack.status} without {', '.join(missing)}: run `fmi-emulator deploy` again, "
            "which names what failed"
        )
    return _resources(stack_name, stack.outputs, stack.parameters)


def _resources(name: str, outputs: Mapping[str, str], parameters: Mapping[str, str]) -> StackResources:
    is_image = bool(parameters.get("ImageUri"))
    return StackResources(
        stack=name,
        bucket=outputs["Bucket"],
        state_machine=outputs["StateMachine"],
        initialize=outputs["Initialize"],
        execute=outputs["Execute"],
        summarize=outputs["Summarize"],
        cluster=outputs["Cluster"],
        service=outputs["Service"],
        balancer=outputs.get("Balancer", ""),
        dns_name=outputs.get("DnsName", ""),
        memory_mb=int(parameters["Memory"]),
        timeout_s=int(parameters["Timeout"]),
        architecture=parameters["Architecture"],
        python="" if is_image else parameters["Runtime"].removeprefix("python"),
        code_key="" if is_image else parameters["CodeKey"],
        data_bucket=parameters.get("DataBucket", ""),
    )
