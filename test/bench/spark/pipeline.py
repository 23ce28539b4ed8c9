"""The pipeline of pipeline.sh as one builds it with Spark and Delta.

    pipeline.py BOOTSTRAP TOPIC JARS DIR

Starts Spark in this process's JVM, with two threads and 4 GB, and prints the
JVM's pid. Each line on standard input is one round over the whole topic, from its
beginning into new tables under DIR; answered by a line with the milliseconds it
took, and the numbers of rows in bronze, silver, and counted in gold.

    bronze  the records as they are, appended
    silver  typed columns of the payload, filtered, one row per event_id (MERGE of new ones)
    gold    counts and sums by hour and type (MERGE of what each batch adds)

Three jobs one after the other, each until it has read what is there. Settings are
those that were fastest on two cores; gold would count twice what a batch that is
tried again had added, which is left as it is commonly done.
"""
import glob
import os
import shutil
import sys
import time

from delta.tables import DeltaTable
from pyspark.sql import SparkSession, functions as f

SCHEMA = "event_id string, user_id bigint, event_type string, amount decimal(12, 2), ts timestamp"
SETTINGS = {
    "spark.driver.memory": "4g",
    "spark.ui.enabled": "false",
    "spark.sql.session.timeZone": "UTC",
    "spark.sql.extensions": "io.delta.sql.DeltaSparkSessionExtension",
    "spark.sql.catalog.spark_catalog": "org.apache.spark.sql.delta.catalog.DeltaCatalog",
    "spark.sql.shuffle.partitions": "2",
    "spark.databricks.delta.snapshotPartitions": "2",
    "spark.sql.streaming.noDataMicroBatches.enabled": "false",
}


def start_session(jars):
    """Spark on two threads, with the jars of a folder."""
    builder = SparkSession.builder.master("local[2]").config("spark.jars", ",".join(glob.glob(f"{jars}/*.jar")))
    for name, value in SETTINGS.items():
        builder = builder.config(name, value)
    spark = builder.getOrCreate()
    spark.sparkContext.setLogLevel("ERROR")
    return spark


class Round:
    """One run of the three jobs over new tables."""

    def __init__(self, spark, bootstrap, topic, directory):
        self.spark, self.bootstrap, self.topic, self.directory = spark, bootstrap, topic, directory

    def path(self, name):
        return os.path.join(self.directory, name)

    def table(self, name):
        return DeltaTable.forPath(self.spark, self.path(name))

    def finish(self, writer, name):
        """Run a job until it has read all that is there."""
        writer.option("checkpointLocation", self.path(f"{name}.checkpoint")).trigger(availableNow=True).start().awaitTermination()

    def bronze(self):
        records = (self.spark.readStream.format("kafka").option("kafka.bootstrap.servers", self.bootstrap)
                   .option("subscribe", self.topic).option("startingOffsets", "earliest").load())
        rows = records.selectExpr("CAST(value AS string) AS payload", "partition AS kafka_partition",
                                  "offset AS kafka_offset", "timestamp AS kafka_timestamp")
        self.finish(rows.writeStream.format("delta").option("path", self.path("bronze")), "bronze")

    def silver(self):
        self.spark.sql(f"CREATE TABLE delta.`{self.path('silver')}` (event_id string, user_key bigint, event_type string,"
                       " amount decimal(12, 2), ts timestamp) USING delta")

        def merge(batch, _):
            (self.table("silver").alias("t").merge(batch.dropDuplicates(["event_id"]).alias("s"), "t.event_id = s.event_id")
             .whenNotMatchedInsertAll().execute())

        rows = (self.spark.readStream.format("delta").load(self.path("bronze"))
                .select(f.from_json("payload", SCHEMA).alias("r")).select("r.*")
                .where("event_id IS NOT NULL AND amount > 0 AND event_type <> 'signup'")
                .selectExpr("event_id", "xxhash64(user_id) AS user_key", "event_type", "amount", "ts"))
        self.finish(rows.writeStream.foreachBatch(merge), "silver")

    def gold(self):
        self.spark.sql(f"CREATE TABLE delta.`{self.path('gold')}` (hour timestamp, event_type string, events bigint,"
                       " amount decimal(38, 2)) USING delta")

        def merge(batch, _):
            groups = (batch.groupBy(f.date_trunc("hour", "ts").alias("hour"), "event_type")
                      .agg(f.count("*").alias("events"), f.sum("amount").cast("decimal(38, 2)").alias("amount")))
            (self.table("gold").alias("t").merge(groups.alias("s"), "t.hour = s.hour AND t.event_type = s.event_type")
             .whenMatchedUpdate(set={"events": "t.events + s.events",
                                     "amount": "CAST(t.amount + s.amount AS decimal(38, 2))"})
             .whenNotMatchedInsertAll().execute())

        rows = self.spark.readStream.format("delta").load(self.path("silver"))
        self.finish(rows.writeStream.foreachBatch(merge), "gold")

    def rows(self, name, expression):
        return self.spark.read.format("delta").load(self.path(name)).agg(f.expr(expression)).first()[0]

    def run(self):
        start = time.monotonic()
        self.bronze()
        self.silver()
        self.gold()
        elapsed_ms = round((time.monotonic() - start) * 1000)
        return elapsed_ms, self.rows("bronze", "count(*)"), self.rows("silver", "count(*)"), self.rows("gold", "sum(events)")


def main():
    bootstrap, topic, jars, directory = sys.argv[1:]
    spark = start_session(jars)
    print(spark.sparkContext._jvm.java.lang.ProcessHandle.current().pid(), flush=True)
    for _ in sys.stdin:
        shutil.rmtree(directory, ignore_errors=True)
        os.makedirs(directory)
        print(*Round(spark, bootstrap, topic, directory).run(), flush=True)
    spark.stop()


if __name__ == "__main__":
    main()
