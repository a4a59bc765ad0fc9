"""S3's REST API: the HTTP front end of the object store."""
