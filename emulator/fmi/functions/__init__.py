"""The deployed functions of a run: initialize, execute and summarize.

They import boto3, the standard library and `fmi_shim.log_lines`, which travels in their archive.
"""
