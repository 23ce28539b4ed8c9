"""What a team writes first: a consumer group of one, and COPY into Postgres.

    consumer.py BOOTSTRAP TOPIC COUNT raw|json CONNINFO TABLE

Reads COUNT records with confluent-kafka, in batches, and writes each batch with
psycopg's COPY, in one transaction with the offsets it has reached, which is what
it takes not to lose or double a record.
"""
import json
import sys

from confluent_kafka import Consumer
import psycopg

BATCH = 20000


def raw_row(message):
    return (message.partition(), message.offset(), message.key().decode(), message.value().decode())


def json_row(message):
    record = json.loads(message.value())
    return (message.partition(), message.offset(), record["event_id"], record["user_id"],
            record["event_type"], record["amount"], record["ts"])


COLUMNS = {
    "raw": ("kafka_partition, kafka_offset, key, payload", raw_row),
    "json": ("kafka_partition, kafka_offset, event_id, user_id, event_type, amount, ts", json_row),
}


def main():
    bootstrap, topic, count, kind, conninfo, table = sys.argv[1:]
    columns, to_row = COLUMNS[kind]
    consumer = Consumer({
        "bootstrap.servers": bootstrap, "group.id": f"bench {table}", "enable.auto.commit": False,
        "auto.offset.reset": "earliest", "queued.max.messages.kbytes": 262144, "fetch.wait.max.ms": 100,
    })
    consumer.subscribe([topic])
    left = int(count)
    with psycopg.connect(conninfo) as connection:
        while left > 0:
            messages = [m for m in consumer.consume(BATCH, timeout=0.5) if m.error() is None]
            if not messages:
                continue
            positions = {m.partition(): m.offset() + 1 for m in messages}
            with connection.cursor() as cursor:
                with cursor.copy(f"COPY {table} ({columns}) FROM STDIN") as copy:
                    for message in messages:
                        copy.write_row(to_row(message))
                cursor.executemany(
                    f"INSERT INTO {table}_positions VALUES (%s, %s) ON CONFLICT (kafka_partition)"
                    " DO UPDATE SET next_offset = excluded.next_offset", list(positions.items()))
            connection.commit()
            left -= len(messages)
    consumer.close()


main()
