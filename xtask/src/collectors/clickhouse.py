"""Asks ClickHouse's engine (chdb) what docs/fleet.md asks of ClickHouse.

python3 clickhouse.py docs/fleet.md FOLDER [MOST]

Runs each statement of the section "### ClickHouse" in its order over the files of FOLDER: the table, the
insertion, the queries. Prints one JSON object: the answers of the queries, in their order, and of the table the
rows by event and verdict. Fails where a statement does.
"""
import json
import pathlib
import sys

from chdb.session import Session

docs, folder = sys.argv[1:3]
section = pathlib.Path(docs).read_text().split("### ClickHouse\n")[1].split("\n### ")[0]
blocks = [rest.split("```")[0] for rest in section.split("```sql\n")[1:]]
statements = [part.strip() for block in blocks for part in block.split(";") if part.strip()]

session = Session()
session.query("create database fleet")
session.query("use fleet")


def ask(statement):
    lines = str(session.query(statement, "JSONCompactEachRow")).splitlines()
    return [json.loads(line) for line in lines if line]


answers = []
for statement in statements:
    if statement.startswith("insert"):
        # The files that a run has left: some are not packed.
        for pattern in ["*.jsonl.zst", "*.jsonl"]:
            if list(pathlib.Path(folder).glob(pattern)):
                ask(statement.replace("/var/log/handshake/events-*.jsonl.zst", f"{folder}/{pattern}"))
        continue
    answer = ask(statement)
    if statement.startswith("select"):
        answers.append(answer)
counted = ask("select event, verdict, cause, node, toUInt32(count()) from attempts group by all order by all")
print(json.dumps({"answers": answers, "rows": counted}))
