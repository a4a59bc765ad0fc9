"""The CloudFormation template, its policies and its secrets."""

import json
import re
from typing import Any

import pytest
import yaml
from cfnlint.api import lint_all
from cryptography import x509

from emulator.fmi.deployment.deploy import template
from emulator.fmi.deployment.permissions import RESOURCE_ACTIONS, deployer_policy, options_policy, user_policy
from emulator.fmi.deployment.secrets import server_certificate
from emulator.fmi.functions.execute import SERVER_NAME


class _Loader(yaml.SafeLoader):
    """Reads CloudFormation's short forms as plain values."""


def _plain(loader: yaml.SafeLoader, _: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return loader.construct_scalar(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_mapping(node, deep=True) if isinstance(node, yaml.MappingNode) else None


_Loader.add_multi_constructor("!", _plain)
CONTENT = yaml.load(template(), _Loader)  # noqa: S506 - a subclass of the safe loader


POLICIES = (deployer_policy, options_policy, user_policy)


def statements(value: Any) -> list[dict[str, Any]]:
    if isinstance(value, dict):
        own = [value] if {"Effect", "Action"} <= value.keys() else []
        return own + [found for entry in value.values() for found in statements(entry)]
    return [found for entry in value for found in statements(entry)] if isinstance(value, list) else []


@pytest.mark.timeout(240)
def test_cfn_lint_finds_nothing() -> None:
    # Informational notes ask for descriptions for language models.
    found = [match for match in lint_all(template()) if match.rule.severity != "informational"]
    assert [str(match) for match in found] == []


def test_no_policy_allows_an_action_by_a_wildcard() -> None:
    of_stack = [
        statement
        for name, resource in CONTENT["Resources"].items()
        for statement in statements(resource)
        if statement["Effect"] == "Allow" or name != "BucketPolicy"
    ]
    assert len(of_stack) > 20
    printed = [found for make in POLICIES for found in make("fmi")["Statement"]]
    for statement in of_stack + printed:
        actions = statement["Action"] if isinstance(statement["Action"], list) else [statement["Action"]]
        assert all(re.fullmatch(r"[a-z0-9]+:[A-Za-z0-9]+", action) for action in actions), statement


def test_only_what_takes_no_resource_is_allowed_for_all_resources() -> None:
    unlimited = {
        action
        for resource in CONTENT["Resources"].values()
        for statement in statements(resource)
        if statement.get("Resource") == "*"
        for action in [statement["Action"]]
    }
    assert unlimited == {"ecr:GetAuthorizationToken", "ec2:DescribeNetworkInterfaces"}


def test_the_deployer_may_make_each_type_of_the_template_and_no_other() -> None:
    assert {resource["Type"] for resource in CONTENT["Resources"].values()} == RESOURCE_ACTIONS.keys()


def test_policies_fit_into_a_managed_policy() -> None:
    for make in POLICIES:
        assert len(json.dumps(make("a" * 50), separators=(",", ":"))) <= 6144


def test_each_function_and_the_server_keep_their_logs_for_a_limited_time() -> None:
    groups = [entry for entry in CONTENT["Resources"].values() if entry["Type"] == "AWS::Logs::LogGroup"]
    functions = [entry for entry in CONTENT["Resources"].values() if entry["Type"] == "AWS::Lambda::Function"]
    assert len(groups) == len(functions) + 1
    assert all(entry["Properties"]["RetentionInDays"] == "LogDays" for entry in groups)


def test_the_server_opens_its_two_ports_alone() -> None:
    ingress = CONTENT["Resources"]["ServerSecurityGroup"]["Properties"]["SecurityGroupIngress"]
    assert [(rule["FromPort"], rule["ToPort"]) for rule in ingress] == [(10000, 10000), (10001, 10001)]


def test_each_certificate_is_another_one_for_the_name_that_ranks_expect() -> None:
    (one, key), (other, _) = server_certificate(), server_certificate()
    assert one != other
    names = x509.load_pem_x509_certificate(one.encode()).extensions.get_extension_for_class(x509.SubjectAlternativeName)
    assert names.value.get_values_for_type(x509.DNSName) == [SERVER_NAME]
    assert "PRIVATE KEY" in key
    assert "PRIVATE KEY" not in one
