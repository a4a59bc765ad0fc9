"""What fmirun does to run a program, written once against boto3: it sees an AWS endpoint, never ours."""
