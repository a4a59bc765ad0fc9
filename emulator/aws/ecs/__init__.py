"""ECS: tasks and services on Fargate, whose containers run as processes. Clusters and task definitions are moto's."""
