"""Code that uses S3, tested on a local cloud: boto3 reaches it without arguments, in the test and in the ranks."""

import boto3


def word_count(comm, bucket):
    """Count the words of this rank's share of a bucket's objects; return the sum of all ranks."""
    import fmi_shim as fmi

    s3 = boto3.client("s3")
    keys = [entry["Key"] for entry in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    words = sum(
        len(s3.get_object(Bucket=bucket, Key=key)["Body"].read().split()) for key in keys[comm.rank :: comm.size]
    )
    return comm.allreduce(words, fmi.func(fmi.op.sum), fmi.types(fmi.datatypes.int))


def test_word_count(local_cloud, fmi_world):
    """Two ranks share three objects."""
    s3 = local_cloud.client("s3")
    s3.create_bucket(Bucket="texts")
    for number, text in enumerate(["one two", "three", "four five six"]):
        s3.put_object(Bucket="texts", Key=f"{number}.txt", Body=text.encode())
    assert fmi_world(2)(word_count, "texts") == [6, 6]


def test_the_cloud_is_empty_again(local_cloud):
    """Each test begins with an empty cloud."""
    assert local_cloud.client("s3").list_buckets()["Buckets"] == []
