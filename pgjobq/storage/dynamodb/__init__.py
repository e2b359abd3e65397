"""The parts of DynamoDBStorage. Only they import boto3."""
