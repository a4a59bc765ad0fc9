"""Names with records in Route 53 lead functions to their addresses."""

from collections.abc import Callable
from typing import Any

from emulator.aws.gateway.host_names import Record, addresses
from tests.emulator.aws.lambda_.http.test_api import Deploy, invoke


def test_a_name_has_the_first_address_that_its_records_lead_to() -> None:
    records = [
        Record("a.example.com.", ("127.0.1.7", "127.0.1.8")),
        Record("other.example.com", ("A.example.com.",)),
        Record("balanced.example.com.", ("dualstack.nlb-1.elb.amazonaws.com.",)),
        Record("round.example.com", ("again.example.com",)),
        Record("again.example.com", ("round.example.com",)),
        Record("outside.example.com", ("somewhere.org",)),
        Record("\\052.example.com.", ("127.0.1.9",)),
        Record("empty.example.com.", ()),
    ]
    assert addresses(records, {"nlb-1.elb.amazonaws.com": "127.0.1.2"}) == {
        "a.example.com": "127.0.1.7",
        "other.example.com": "127.0.1.7",
        "balanced.example.com": "127.0.1.2",
    }


def test_a_function_resolves_a_record_that_is_made_and_changed_while_it_runs(
    client: Callable[[str], Any], functions: Any, deploy: Deploy
) -> None:
    """The published script has the name of its rendezvous server in its code."""
    name = deploy("""
        import socket, subprocess
        def handler(event, context):
            try:
                found = socket.gethostbyname("rendezvous.uva-ds5110.com")
            except OSError:
                return None
            child = subprocess.run(["getent", "hosts", "localhost"], capture_output=True, text=True)
            return [found, "localhost" in child.stdout]
    """)
    route53 = client("route53")
    zone = route53.create_hosted_zone(Name="uva-ds5110.com", CallerReference=name)["HostedZone"]["Id"]

    def change(action: str, address: str) -> None:
        record = {"Name": "rendezvous.uva-ds5110.com", "Type": "A", "TTL": 60, "ResourceRecords": [{"Value": address}]}
        batch = {"Changes": [{"Action": action, "ResourceRecordSet": record}]}
        route53.change_resource_record_sets(HostedZoneId=zone, ChangeBatch=batch)

    assert invoke(functions, name)[0] is None
    change("CREATE", "127.0.1.7")
    assert invoke(functions, name)[0] == ["127.0.1.7", True]
    change("UPSERT", "127.0.1.8")
    assert invoke(functions, name)[0] == ["127.0.1.8", True]
    change("DELETE", "127.0.1.8")
    assert invoke(functions, name)[0] is None
