"""Amazon States Language: values and pure functions, without input, output or a clock.

The language: https://states-language.net and
https://docs.aws.amazon.com/step-functions/latest/dg/concepts-amazon-states-language.html
"""
