"""Requests and answers of AWS's services, read, checked and written by the service models that botocore has."""
