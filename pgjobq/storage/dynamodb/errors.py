"""Translate errors of DynamoDB and its client to pgjobq's errors, whose messages name the remedy."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import (
    ClientError,
    ConfigNotFound,
    HTTPClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
    ProfileNotFound,
    WaiterError,
)
from botocore.exceptions import ConnectionError as NoConnection

from pgjobq.errors import ConfigurationError, InvalidJob, NotMigrated, PgjobqError, StorageError, StorageUnavailable

CONDITION_FAILED = "ConditionalCheckFailedException"
CANCELLED = "TransactionCanceledException"
NOT_FOUND = "ResourceNotFoundException"
EXISTS = "ResourceInUseException"
_SETTINGS = (NoRegionError, NoCredentialsError, PartialCredentialsError, ProfileNotFound, ConfigNotFound)
_AWAY = (NoConnection, HTTPClientError, WaiterError)
# Temporary errors. The client has retried a few times before it raises them.
_BUSY = {
    "InternalFailure",
    "InternalServerError",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "RequestTimeout",
    "ServiceUnavailable",
    "Throttling",
    "ThrottlingException",
    "TransactionConflictException",
    "TransactionInProgressException",
}
_REFUSED = {
    "AccessDeniedException",
    "ExpiredTokenException",
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "UnrecognizedClientException",
}


def code_of(error: Exception) -> str:
    """Return DynamoDB's code, or "" for any other error."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def reasons_of(error: ClientError) -> list[str]:
    """Return why each item of a cancelled transaction was refused, or "None" for items that were not refused."""
    reasons: list[dict[str, Any]] = error.response.get("CancellationReasons", [])
    return [str(reason.get("Code")) for reason in reasons]


def translate(error: Exception, server: str) -> PgjobqError:
    """Return the pgjobq error for an error of botocore. server: the address of DynamoDB."""
    code = code_of(error)
    said = error.response["Error"].get("Message", code) if isinstance(error, ClientError) else str(error)
    message = " ".join(str(said).split())[:500]
    if isinstance(error, _SETTINGS):
        return ConfigurationError(
            f"DynamoDB: {message}; set the region in the URL (dynamodb://REGION/TABLE) or AWS_DEFAULT_REGION, and"
            " the credentials in any way that boto3 supports, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if code == "ValidationException" and "size" in message.lower():
        return InvalidJob(f"data: {message}; store the large part elsewhere and enqueue a reference", field="data")
    if code in _BUSY or code.startswith("5") or isinstance(error, _AWAY):
        return StorageUnavailable(f"DynamoDB at {server} does not answer: {message}")
    if code == CANCELLED and isinstance(error, ClientError):
        reasons = ", ".join(sorted(set(reasons_of(error)) - {"None"}))
        return StorageUnavailable(f"DynamoDB at {server} is busy: {reasons}")
    if code in _REFUSED:
        return StorageError(f"DynamoDB at {server}: {message}; check the credentials and their rights on the tables")
    if code == NOT_FOUND:
        return NotMigrated(f"DynamoDB at {server}: {message}; the next call creates the table, unless create=False")
    return StorageError(f"DynamoDB at {server}: {code or type(error).__name__}: {message}")
