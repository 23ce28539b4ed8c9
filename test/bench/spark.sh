# Spark and Delta beside us. To be sourced by pipeline.sh, after servers.sh and measure.sh.
#
# PySpark comes from PyPI and the jars from Maven, into a folder of the cache, once, and
# only if MD_BENCH_SPARK is 1; later runs use what is there, unless it is 0.

spark_home=$MD_CACHE/spark-$(cat test/bench/spark/pom.xml test/bench/spark/requirements.txt | cksum | cut -d' ' -f1)

# Is Spark to run, too? Gets what it needs.
spark_is_wanted() {
    [ "${MD_BENCH_SPARK-}" != 0 ] || return 1
    [ -e "$spark_home/.complete" ] || { [ "${MD_BENCH_SPARK-}" = 1 ] && get_spark; }
}

get_spark() {
    echo "getting Spark and Delta"
    rm -rf "$spark_home"
    {
        /usr/bin/python3 -m venv "$spark_home/venv" &&
            "$spark_home/venv/bin/pip" install -q -r test/bench/spark/requirements.txt &&
            mvn -B -q -Dstyle.color=never -f test/bench/spark/pom.xml -Dmaven.repo.local="$MD_CACHE/maven" \
                dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$spark_home/jars"
    } >"$MD_RUN/spark_get.log" 2>&1 || { cat "$MD_RUN/spark_get.log" >&2; exit 1; }
    touch "$spark_home/.complete"
}

# Start Spark, and let it warm up with a round that is not counted.
start_spark() {
    coproc SPARK {
        cd "$MD_RUN" && exec "$spark_home/venv/bin/python" -B "$OLDPWD/test/bench/spark/pipeline.py" \
            "$MD_KAFKA_BOOTSTRAP" events "$spark_home/jars" "$MD_RUN/spark" 2>"$MD_RUN/spark.log"
    }
    read -r spark_pid <&"${SPARK[0]}" || { cat "$MD_RUN/spark.log" >&2; exit 1; }
    run_spark
    printf 'Spark warms up: %.2f s\n' "$(calculate "$spark_ms / 1000")"
}

# One round; sets spark_ms, spark_cpu (of its JVM), spark_silver (rows) and spark_peak, the most memory it has had.
run_spark() {
    local cpu_before bronze gold
    cpu_before=$(process_cpu_ms "$spark_pid")
    echo run >&"${SPARK[1]}"
    read -r spark_ms bronze spark_silver gold <&"${SPARK[0]}" || { tail -n 40 "$MD_RUN/spark.log" >&2; exit 1; }
    spark_cpu=$(($(process_cpu_ms "$spark_pid") - cpu_before))
    spark_peak=$(awk '/^VmHWM:/ { printf "%d", $2 / 1024 }' "/proc/$spark_pid/status")
    [ "$bronze" -eq "$records" ] && [ "$gold" -eq "$spark_silver" ] ||
        { echo "Spark has $bronze rows in bronze, $spark_silver in silver, $gold counted in gold" >&2; exit 1; }
}

# It ends with its standard input.
stop_spark() {
    local input=${SPARK[1]} pid=$SPARK_PID
    exec {input}>&-
    wait "$pid" || true
}
