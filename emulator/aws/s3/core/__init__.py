"""S3's buckets and objects: bodies in files, all else in a database."""
