"""What DynamoDB and its client said, as an error of pgjobq's that names the mend."""

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
# They pass by themselves; the client has tried again a few times before it says so.
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
    """The code that DynamoDB gave; empty when it is another's error."""
    return str(error.response.get("Error", {}).get("Code", "")) if isinstance(error, ClientError) else ""


def reasons_of(error: ClientError) -> list[str]:
    """Why each item of a cancelled transaction was refused; "None" for those that were not."""
    reasons: list[dict[str, Any]] = error.response.get("CancellationReasons", [])
    return [str(reason.get("Code")) for reason in reasons]


def translate(error: Exception, server: str) -> PgjobqError:
    """The pgjobq error for one of botocore's; server: where DynamoDB is."""
    code = code_of(error)
    said = error.response["Error"].get("Message", code) if isinstance(error, ClientError) else str(error)
    message = " ".join(str(said).split())[:500]
    if isinstance(error, _SETTINGS):
        return ConfigurationError(
            f"DynamoDB: {message}; name the region in the URL (dynamodb://REGION/TABLE) or AWS_DEFAULT_REGION, and"
            " give credentials in any way that boto3 knows, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    if code == "ValidationException" and "size" in message.lower():
        return InvalidJob(f"data: {message}; store the bulk elsewhere and enqueue a reference", field="data")
    if code in _BUSY or code.startswith("5") or isinstance(error, _AWAY):
        return StorageUnavailable(f"DynamoDB at {server} does not answer: {message}")
    if code == CANCELLED and isinstance(error, ClientError):
        reasons = ", ".join(sorted(set(reasons_of(error)) - {"None"}))
        return StorageUnavailable(f"DynamoDB at {server} is busy: {reasons}")
    if code in _REFUSED:
        return StorageError(f"DynamoDB at {server}: {message}; check the credentials and their rights on the tables")
    if code == NOT_FOUND:
        return NotMigrated(f"DynamoDB at {server}: {message}; the next call makes the table, unless create=False")
    return StorageError(f"DynamoDB at {server}: {code or type(error).__name__}: {message}")
