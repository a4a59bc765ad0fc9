"""Deletes a stack. The bucket with the results stays, unless its deletion is asked for by name."""

from collections.abc import Callable
from typing import Any

from botocore.exceptions import ClientError

from emulator.fmi.aws_session import AwsSession
from emulator.fmi.deployment.stack import Stack, StackEvent, StackOperations

_BATCH = 1000


def destroy_stack(
    session: AwsSession, stack: Stack, on_event: Callable[[StackEvent], None], *, delete_results: bool
) -> None:
    """Delete a stack.

    Parameters
    ----------
    session
        The account.
    stack
        The stack.
    on_event
        Called with each change of a resource's state.
    delete_results
        Whether the bucket is emptied and deleted, too.

    Raises
    ------
    StackError
        If a resource cannot be deleted.
    """
    StackOperations(session.client("cloudformation"), stack.name, on_event).delete()
    name, zone = stack.parameters.get("DnsName", ""), stack.parameters.get("HostedZoneId", "")
    if name and zone:
        # Not before: the stack's function would set it again when the server's task is replaced meanwhile.
        delete_record(session.client("route53"), zone, name)
    bucket = stack.outputs.get("Bucket", "")
    if delete_results and bucket:
        delete_bucket(session.client("s3"), bucket)


def delete_record(route53: Any, zone: str, name: str) -> None:
    """Delete the DNS record that a function of the stack has kept, if there is one."""
    found = route53.list_resource_record_sets(
        HostedZoneId=zone, StartRecordName=name, StartRecordType="A", MaxItems="1"
    )["ResourceRecordSets"]
    for record in found:
        if record["Name"].rstrip(".") == name.rstrip(".") and record["Type"] == "A":
            route53.change_resource_record_sets(
                HostedZoneId=zone,
                ChangeBatch={"Changes": [{"Action": "DELETE", "ResourceRecordSet": record}]},
            )


def delete_bucket(s3: Any, bucket: str) -> None:
    """Delete a bucket and all objects in it, if it exists."""
    try:
        for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, PaginationConfig={"PageSize": _BATCH}):
            keys = [{"Key": found["Key"]} for found in page.get("Contents", [])]
            if keys:
                s3.delete_objects(Bucket=bucket, Delete={"Objects": keys, "Quiet": True})
        s3.delete_bucket(Bucket=bucket)
    except ClientError as error:
        if error.response["Error"]["Code"] != "NoSuchBucket":
            raise
