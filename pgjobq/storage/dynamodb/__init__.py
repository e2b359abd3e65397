"""What DynamoDBStorage is made of; the only folder that imports boto3."""
