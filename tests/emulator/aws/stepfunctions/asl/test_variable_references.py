"""The variables that a definition's states refer to."""

import json

from emulator.aws.stepfunctions.asl.variable_references import variable_references


def test_variables_are_found_in_expressions_of_all_states_alone() -> None:
    inner = {"Inner": {"Type": "Pass", "Parameters": {"q.$": "$Question", "a.$": "$.Answer"}, "End": True}}
    states = {
        "None": {
            "Type": "Pass",
            "Comment": "$comment",
            "Result": {"text": "$text"},
            "Assign": {"x": "$no"},
            "Next": "Map",
        },
        "Map": {
            "Type": "Map",
            "ItemsPath": "$items.list",
            "ItemSelector": {"v.$": "States.Format('$quoted {}', $$.Map.Item.Value, $template)"},
            "ItemProcessor": {"StartAt": "Inner", "States": inner},
            "Next": "Choice",
        },
        "Choice": {
            "Type": "Choice",
            "Choices": [{"And": [{"Variable": "$b", "NumericEqualsPath": "$a"}], "Next": "None"}],
        },
    }
    assert variable_references(json.dumps({"StartAt": "None", "States": states})) == {
        "Map": ("items", "template"),
        "Inner": ("Question",),
        "Choice": ("a", "b"),
    }
