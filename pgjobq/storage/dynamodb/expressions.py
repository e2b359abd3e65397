"""Changes and conditions, as DynamoDB's expressions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pgjobq.storage.dynamodb.rows import encode

Value = str | int


@dataclass(frozen=True, kw_only=True)
class Change:
    """A change of an item, and its condition.

    to: new values; None removes the attribute. add: numbers to add. when: attributes that must have this value, or one
    of these. absent: attributes that must not exist.
    """

    to: Mapping[str, Value | None] = field(default_factory=dict)
    add: Mapping[str, int] = field(default_factory=dict)
    when: Mapping[str, Value | Sequence[Value]] = field(default_factory=dict)
    absent: Sequence[str] = ()

    def arguments(self) -> dict[str, Any]:
        """Return the arguments of update_item, or of delete_item and put_item if nothing is changed."""
        values: dict[str, Value] = {}

        def bound(value: Value) -> str:
            values[f":{len(values)}"] = value
            return f":{len(values) - 1}"

        sets = [f"#{name} = {bound(value)}" for name, value in self.to.items() if value is not None]
        removed = [f"#{name}" for name, value in self.to.items() if value is None]
        adds = [f"#{name} {bound(value)}" for name, value in self.add.items()]
        conditions = [f"attribute_not_exists(#{name})" for name in self.absent]
        for name, wanted in self.when.items():
            some = [wanted] if isinstance(wanted, str | int) else wanted
            conditions.append(f"#{name} IN ({', '.join(bound(value) for value in some)})")
        parts = [("SET", sets), ("REMOVE", removed), ("ADD", adds)]
        update = " ".join(f"{verb} {', '.join(clauses)}" for verb, clauses in parts if clauses)
        names = dict.fromkeys([*self.to, *self.add, *self.when, *self.absent])
        arguments = {
            "UpdateExpression": update,
            "ConditionExpression": " AND ".join(conditions),
            "ExpressionAttributeNames": {f"#{name}": name for name in names},
            "ExpressionAttributeValues": encode(values),
        }
        return {key: value for key, value in arguments.items() if value}
