"""Create the tables and indexes if they are missing, and check that existing tables are pgjobq's."""

from __future__ import annotations

from typing import Any

from botocore.exceptions import ClientError

from pgjobq.errors import SchemaConflict, SchemaTooNew
from pgjobq.storage.dynamodb.errors import CONDITION_FAILED, EXISTS, NOT_FOUND, code_of
from pgjobq.storage.dynamodb.rows import decode, encode

VERSION = 1  # of the items and indexes
SCHEMA = "schema"  # the item of the table meta that has it
PATIENCE = {"Delay": 1, "MaxAttempts": 120}  # seconds; a table takes some 10

# A change of an indexed attribute costs a write. These attributes change only with the keys, or never.
INDEXES = {
    "by_lane": ("lane", "place", ["type", "queue", "attempts", "max_retries", "worker_id", "claim"]),
    "by_status": ("status", "seq", ["queue", "finished_at"]),
}


def prepare(client: Any, jobs: str, meta: str, *, create: bool) -> None:
    """Check that the tables exist and are pgjobq's. Raises SchemaConflict, SchemaTooNew, or the client's errors."""
    if create:
        for table, indexes in ((jobs, INDEXES), (meta, {})):
            _ensure(client, table, indexes)
    schema = encode({"id": SCHEMA})
    found = client.get_item(TableName=meta, Key=schema, ConsistentRead=True).get("Item")
    if found is None:
        try:
            item = schema | encode({"version": VERSION})
            client.put_item(TableName=meta, Item=item, ConditionExpression="attribute_not_exists(id)")
        except ClientError as error:  # another was quicker
            if code_of(error) != CONDITION_FAILED:
                raise
    elif (version := decode(found)["version"]) > VERSION:
        raise SchemaTooNew(f"the table {jobs} has version {version}, this pgjobq supports up to {VERSION}; upgrade it")


def _ensure(client: Any, table: str, indexes: dict[str, tuple[str, str, list[str]]]) -> None:
    try:
        found = client.describe_table(TableName=table)["Table"]
    except ClientError as error:
        if code_of(error) != NOT_FOUND:
            raise
        try:
            client.create_table(**_definition(table, indexes))
        except ClientError as other:
            if code_of(other) != EXISTS:  # another was quicker
                raise
        client.get_waiter("table_exists").wait(TableName=table, WaiterConfig=PATIENCE)
        return
    there = {index["IndexName"]: _keys(index) for index in found.get("GlobalSecondaryIndexes", ())}
    ours = _keys(found) == ["id"] and all(there.get(name) == [*keys] for name, (*keys, _) in indexes.items())
    if not ours:
        raise SchemaConflict(f"the table {table} exists and is not pgjobq's; use another name")
    if found["TableStatus"] == "CREATING":
        client.get_waiter("table_exists").wait(TableName=table, WaiterConfig=PATIENCE)


def _keys(described: dict[str, Any]) -> list[str]:
    by_kind = {key["KeyType"]: key["AttributeName"] for key in described["KeySchema"]}
    return [by_kind[kind] for kind in ("HASH", "RANGE") if kind in by_kind]


def _definition(table: str, indexes: dict[str, tuple[str, str, list[str]]]) -> dict[str, Any]:
    names = dict.fromkeys(["id", *(name for lane, place, _ in indexes.values() for name in (lane, place))])
    definition: dict[str, Any] = {
        "TableName": table,
        "KeySchema": [{"AttributeName": "id", "KeyType": "HASH"}],
        "AttributeDefinitions": [{"AttributeName": name, "AttributeType": "S"} for name in names],
        "BillingMode": "PAY_PER_REQUEST",
    }
    if indexes:
        definition["GlobalSecondaryIndexes"] = [
            {
                "IndexName": name,
                "KeySchema": [
                    {"AttributeName": lane, "KeyType": "HASH"},
                    {"AttributeName": place, "KeyType": "RANGE"},
                ],
                "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": projected},
            }
            for name, (lane, place, projected) in indexes.items()
        ]
    return definition
