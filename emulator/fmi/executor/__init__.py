"""The image of the executor: the deployed functions with AWS's runtime client, from the Dockerfile beside this file."""
