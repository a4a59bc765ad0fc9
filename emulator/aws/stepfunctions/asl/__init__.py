"""Amazon States Language as values and pure functions: no input, no output, no clock of its own.

The language: https://states-language.net and
https://docs.aws.amazon.com/step-functions/latest/dg/concepts-amazon-states-language.html
"""
