"""Keeps a DNS record at the address of the rendezvous server, whenever its task has started."""

import os
from typing import Any

import boto3

# Seconds that resolvers may keep the record: ranks that start after a replacement find the new address.
TTL_S = 10


class NoAddressError(Exception):
    """The task has no public address."""


def handler(event: dict[str, Any], context: object = None) -> dict[str, Any]:
    """Set the A record DNS_NAME in the zone HOSTED_ZONE_ID to the public address of the task in an event.

    Parameters
    ----------
    event
        An ``ECS Task State Change`` event of a running task.
    context
        Not used.

    Returns
    -------
    dict
        The ``name`` and its ``address``.

    Raises
    ------
    NoAddressError
        If the task has no network interface with a public address. Lambda then repeats the event.
    """
    details = [
        entry["value"]
        for attachment in event["detail"].get("attachments", [])
        for entry in attachment.get("details", [])
        if entry["name"] == "networkInterfaceId"
    ]
    if not details:
        raise NoAddressError(f"task {event['detail'].get('taskArn', '')} has no network interface")
    found = boto3.client("ec2").describe_network_interfaces(NetworkInterfaceIds=details[:1])["NetworkInterfaces"]
    address = found[0].get("Association", {}).get("PublicIp") if found else None
    if not address:
        raise NoAddressError(f"network interface {details[0]} has no public address")
    name = os.environ["DNS_NAME"]
    record = {"Name": name, "Type": "A", "TTL": TTL_S, "ResourceRecords": [{"Value": address}]}
    boto3.client("route53").change_resource_record_sets(
        HostedZoneId=os.environ["HOSTED_ZONE_ID"],
        ChangeBatch={"Changes": [{"Action": "UPSERT", "ResourceRecordSet": record}]},
    )
    return {"name": name, "address": address}
