"""S3's buckets and objects: large bodies in files, everything else in a database."""
