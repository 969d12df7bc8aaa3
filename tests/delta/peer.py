"""The other implementation of Delta tables that tests/delta.rs compares with: the Python package deltalake.

write TABLE MODE [PARTITION]   columns as JSON from standard input: {"name": ["type", [values]]}
append TABLE TIMES             the same columns, so many commits one after another
delete TABLE PREDICATE         rows that leave the table, while their files stay in its folder
query TABLE SQL                JSON: the rows of a query over the table t
log TABLE                      JSON: version, operations, files of the table
"""

import json
import os
import sys

from arro3.core import Array, DataType, Table
from deltalake import DeltaTable, QueryBuilder, write_deltalake

TYPES = {"string": DataType.string(), "long": DataType.int64(), "int": DataType.int32(), "float": DataType.float32()}


def columns():
    given = json.load(sys.stdin)
    return Table.from_pydict({name: Array(values, type=TYPES[of]) for name, (of, values) in given.items()})


def store():
    return {name: value for name, value in os.environ.items() if name.startswith("AWS_")}


def table(place):
    return DeltaTable(place, storage_options=store())


command, place, *rest = sys.argv[1:]
if command == "write":
    mode, *partition = rest
    write_deltalake(place, columns(), mode=mode, partition_by=partition or None, storage_options=store())
elif command == "append":
    rows = columns()
    for _ in range(int(rest[0])):
        write_deltalake(place, rows, mode="append", storage_options=store())
elif command == "delete":
    table(place).delete(rest[0])
elif command == "query":
    found = QueryBuilder().register("t", table(place)).execute(rest[0]).read_all()
    lists = [[value.as_py() for value in found.column(name)] for name in found.column_names]
    print(json.dumps([list(row) for row in zip(*lists)]))
elif command == "log":
    delta = table(place)
    print(json.dumps({
        "version": delta.version(),
        "operations": [entry["operation"] for entry in reversed(delta.history())],
        "files": len(delta.file_uris()),
    }))
else:
    sys.exit(f"unknown command {command}")
