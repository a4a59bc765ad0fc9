"""Object stores: S3 and Redis, one object a message, with the schedules made for them."""
