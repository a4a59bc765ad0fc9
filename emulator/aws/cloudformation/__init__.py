"""CloudFormation: stacks of resources that the endpoint's own services create, update and delete."""
