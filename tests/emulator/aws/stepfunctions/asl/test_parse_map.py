"""The parser of Map states: mistakes and their locations."""

import pytest

from tests.emulator.aws.stepfunctions.asl.test_parse_machine import DISTRIBUTED, READER, a_map, diagnostics_of, of


@pytest.mark.parametrize(
    ("text", "location", "message"),
    [
        (of({"M": {"Type": "Map", "End": True}}), "", "'ItemProcessor' is required"),
        (
            a_map({"Mode": "INLINE", "ExecutionType": "EXPRESS"}),
            "/ItemProcessor/ProcessorConfig/ExecutionType",
            "expected only with Mode DISTRIBUTED",
        ),
        (a_map({"Mode": "DISTRIBUTED"}), "/ItemProcessor/ProcessorConfig", "'ExecutionType' is required"),
        (a_map({"Mode": "FAR"}), "/ItemProcessor/ProcessorConfig/Mode", "expected one of INLINE, DISTRIBUTED"),
        (a_map(None, ItemReader=READER), "/ItemReader", "expected only in a Map with"),
        (a_map(None, ToleratedFailureCount=1), "/ToleratedFailureCount", "expected only in a Map with"),
        (a_map(None, MaxConcurrency=-1), "/MaxConcurrency", "from 0 to"),
        (a_map(None, MaxConcurrency=1, MaxConcurrencyPath="$.m"), "/MaxConcurrencyPath", "only one of"),
        (a_map(None, ItemSelector={}, Parameters={}), "/Parameters", "only one of"),
        (a_map(DISTRIBUTED, ItemReader={**READER, "Resource": "s3"}), "/ItemReader/Resource", "s3:listObjectsV2"),
        (a_map(DISTRIBUTED, ItemReader={**READER, "Parameters": {"Bucket": "b"}}), "/ItemReader/Parameters", "'Key'"),
        (
            a_map(DISTRIBUTED, ItemReader={**READER, "ReaderConfig": {"InputType": "XML"}}),
            "/ItemReader/ReaderConfig/InputType",
            "expected one of JSON, JSONL, CSV",
        ),
        (
            a_map(DISTRIBUTED, ItemReader={**READER, "ReaderConfig": {"InputType": "CSV"}}),
            "/ItemReader/ReaderConfig",
            "'CSVHeaderLocation' is required",
        ),
        (
            a_map(
                DISTRIBUTED, ItemReader={**READER, "ReaderConfig": {"InputType": "CSV", "CSVHeaderLocation": "GIVEN"}}
            ),
            "/ItemReader/ReaderConfig/CSVHeaders",
            "an array of column names",
        ),
        (
            a_map(DISTRIBUTED, ItemReader={**READER, "ReaderConfig": {"InputType": "JSON", "ItemsPointer": "a"}}),
            "/ItemReader/ReaderConfig/ItemsPointer",
            "starts with /",
        ),
        (a_map(DISTRIBUTED, ItemBatcher={}), "/ItemBatcher", "expected MaxItemsPerBatch"),
        (a_map(DISTRIBUTED, ItemBatcher={"MaxItemsPerBatch": 0}), "/ItemBatcher/MaxItemsPerBatch", "from 1"),
        (a_map(DISTRIBUTED, ResultWriter={}), "/ResultWriter", "expected WriterConfig, or Resource and Parameters"),
        (
            a_map(DISTRIBUTED, ResultWriter={"WriterConfig": {"Transformation": "SOME"}}),
            "/ResultWriter/WriterConfig/Transformation",
            "expected one of NONE, COMPACT, FLATTEN",
        ),
        (a_map(DISTRIBUTED, ToleratedFailurePercentage=101), "/ToleratedFailurePercentage", "from 0 to 100"),
        (a_map(DISTRIBUTED, Label="a b"), "/Label", "expected 1 to 40 characters"),
    ],
)
def test_a_mistake_in_a_map_is_reported_at_its_location(text: str, location: str, message: str) -> None:
    found = diagnostics_of(text)
    assert ("/States/M" + location, True) in [
        (diagnostic.location, message in diagnostic.message) for diagnostic in found
    ], found
