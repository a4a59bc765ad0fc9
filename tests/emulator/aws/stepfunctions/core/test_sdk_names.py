"""Names of services, members and errors as AWS's SDK for Java has them, and results with these names."""

import datetime
from typing import Any

import botocore.session
import pytest

from emulator.aws.stepfunctions.asl.resources import OPTIMIZED
from emulator.aws.stepfunctions.core.sdk_names import (
    OPTIMIZED_SERVICES,
    ServiceError,
    boto_service,
    member_name,
    optimized_failure,
    sdk_failure,
    service_name,
    to_boto,
    to_json,
)

SESSION = botocore.session.get_session()


@pytest.mark.parametrize(
    ("service_id", "name"),
    [("DynamoDB", "DynamoDb"), ("SFN", "Sfn"), ("ACM PCA", "AcmPca"), ("CloudWatch Logs", "CloudWatchLogs"),
     ("WAFV2", "Wafv2"), ("Elastic Load Balancing v2", "ElasticLoadBalancingV2"), ("EC2", "Ec2"), ("S3", "S3"),
     ("Database Migration Service", "DatabaseMigration"), ("SQS", "Sqs"), ("Secrets Manager", "SecretsManager")],
)  # fmt: skip
def test_services_have_the_names_of_the_sdk(service_id: str, name: str) -> None:
    assert service_name(service_id) == name


@pytest.mark.parametrize(
    ("name", "service"),
    [("sfn", "stepfunctions"), ("cloudwatchlogs", "logs"), ("eventbridge", "events"), ("acmpca", "acm-pca"),
     ("cognitoidentityprovider", "cognito-idp"), ("dynamodb", "dynamodb"), ("databasemigration", "dms"),
     ("nothing", "nothing")],
)  # fmt: skip
def test_a_resource_names_a_service_as_the_sdk_does(name: str, service: str) -> None:
    assert boto_service(name, SESSION.get_available_services()) == service


@pytest.mark.parametrize(
    ("name", "shown"),
    [("userName", "UserName"), ("ETag", "ETag"), ("SSEKMSKeyId", "SsekmsKeyId"), ("MD5OfBody", "Md5OfBody"),
     ("ChecksumCRC32", "ChecksumCRC32"), ("BOOL", "Bool"), ("NULL", "Nul"), ("SS", "Ss"), ("M", "M"),
     ("DBInstanceIdentifier", "DbInstanceIdentifier"), ("VpcId", "VpcId")],
)  # fmt: skip
def test_members_have_the_names_of_the_sdk(name: str, shown: str) -> None:
    assert member_name(name) == shown


def test_every_service_with_an_optimized_integration_has_names() -> None:
    assert OPTIMIZED_SERVICES.keys() == {service for service, _ in OPTIMIZED}


@pytest.mark.parametrize(
    ("service", "codes", "sdk", "optimized"),
    [
        ("dynamodb", ("ConditionalCheckFailedException",), "DynamoDb.ConditionalCheckFailedException",
         "DynamoDB.ConditionalCheckFailedException"),
        ("dynamodb", ("ValidationException",), "DynamoDb.DynamoDbException", "DynamoDB.AmazonDynamoDBException"),
        ("sns", ("InvalidParameter",), "Sns.InvalidParameterException", "SNS.InvalidParameterException"),
        ("sns", ("Surprise",), "Sns.SnsException", "SNS.AmazonSNSException"),
        ("sqs", ("AWS.SimpleQueueService.NonExistentQueue", "QueueDoesNotExist"), "Sqs.QueueDoesNotExistException",
         "SQS.QueueDoesNotExistException"),
        ("events", ("ResourceNotFoundException",), "EventBridge.ResourceNotFoundException",
         "EventBridge.ResourceNotFoundException"),
        ("s3", ("NoSuchKey",), "S3.NoSuchKeyException", None),
        ("s3", ("SlowDown",), "S3.S3Exception", None),
        ("iam", ("NoSuchEntity",), "Iam.NoSuchEntityException", None),
        ("ec2", ("InvalidInstanceID.NotFound",), "Ec2.Ec2Exception", None),
        ("secretsmanager", ("ValidationException",), "SecretsManager.SecretsManagerException", None),
        ("stepfunctions", ("InvalidToken",), "Sfn.InvalidTokenException", None),
    ],
)  # fmt: skip
def test_error_names_depend_on_the_kind_of_integration(
    service: str, codes: tuple[str, ...], sdk: str, optimized: str | None
) -> None:
    model, error = SESSION.get_service_model(service), ServiceError("Any", codes, "wrong", 400, "id")
    name, cause = sdk_failure(model, error)
    assert name == sdk
    assert cause == f"wrong (Service: {sdk.partition('.')[0]}, Status Code: 400, Request ID: id)"
    if optimized is not None:
        name, cause = optimized_failure(service, model, error)
        assert name == optimized
        assert f"Status Code: 400; Error Code: {codes[0]}; Request ID: id" in cause


def test_a_missing_object_has_its_name_although_head_responses_have_no_code() -> None:
    error = ServiceError("HeadObject", ("404",), "Not Found", 404, "id", "more")
    assert sdk_failure(SESSION.get_service_model("s3"), error) == (
        "S3.NoSuchKeyException",
        "Not Found (Service: S3, Status Code: 404, Request ID: id, Extended Request ID: more)",
    )


def test_results_keep_the_keys_of_maps() -> None:
    item = {"userName": {"S": "a"}, "isOn": {"BOOL": True}, "deep": {"M": {"aKey": {"NULL": True}}}}
    shape = SESSION.get_service_model("dynamodb").operation_model("GetItem").output_shape
    assert to_json({"Item": item}, shape, sdk=False) == {"Item": item}
    shown: Any = {"userName": {"S": "a"}, "isOn": {"Bool": True}, "deep": {"M": {"aKey": {"Nul": True}}}}
    assert to_json({"Item": item}, shape, sdk=True) == {"Item": shown}
    request = SESSION.get_service_model("dynamodb").operation_model("PutItem").input_shape
    assert to_boto({"TableName": "t", "Item": shown, "ConditionExpression": None}, request) == {
        "TableName": "t",
        "Item": item,
    }
    variables = {"Environment": {"Variables": {"lower_case": "1", "Mixed": "2"}}, "LastModified": "x"}
    shape = SESSION.get_service_model("lambda").operation_model("GetFunctionConfiguration").output_shape
    assert to_json(variables, shape, sdk=True) == variables


def test_times_and_bodies_are_texts() -> None:
    shape = SESSION.get_service_model("s3").operation_model("GetObject").output_shape
    moment = datetime.datetime(2026, 1, 2, tzinfo=datetime.UTC)
    response = {"Body": "ü".encode(), "LastModified": moment, "Metadata": {"aKey": "v"}, "SSEKMSKeyId": "k"}
    assert to_json(response, shape, sdk=True) == {
        "Body": "ü",
        "LastModified": "2026-01-02T00:00:00Z",
        "Metadata": {"aKey": "v"},
        "SsekmsKeyId": "k",
    }
