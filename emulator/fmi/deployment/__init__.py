"""The stack of an AWS account: deployed, described and destroyed through CloudFormation."""
