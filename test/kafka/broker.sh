#!/usr/bin/env bash
# Start and stop one Apache Kafka broker (KRaft, loopback, free ports).
#
#   test/kafka/broker.sh start DIR [ARGUMENT]...         prints bootstrap servers
#   test/kafka/broker.sh stop DIR [TERM|KILL]
#
# An ARGUMENT is PROPERTY=VALUE of server.properties; listener:NAME=PROTOCOL, for
# a listener on a port of its own beside the plain one, at localhost, which
# advertised.listeners then tells; scram:MECHANISM=[...], a user as
# StorageTool's --add-scram takes it; or version:VERSION, of Apache Kafka.
#
# DIR holds the log segments, server.properties, broker.log and broker.pid; a
# start in a DIR that was used before continues with its data and its ports.
# The jars are resolved by Maven once and kept under MD_CACHE. Needs
# kafka_tool in PATH.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
. "$here/../lib/stop.sh"

# Print the folder with the jars of version $1 (empty: the pom's), filled first
# when it is not there.
kafka_libs() {
    local libs
    libs=$MD_CACHE/kafka-$(cksum <"$here/pom.xml" | cut -d' ' -f1)${1:+-$1}
    if [ ! -e "$libs/.complete" ]; then
        (
            flock 8
            [ ! -e "$libs/.complete" ] || exit 0
            mvn -B -q -Dstyle.color=never -f "$here/pom.xml" ${1:+-Dkafka.version=$1} -Dmaven.repo.local="$MD_CACHE/maven" \
                dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory="$libs" >&2 &&
                touch "$libs/.complete"
        ) 8>"$libs.lock" || { echo "broker.sh: could not get the jars of Apache Kafka with Maven" >&2; return 1; }
    fi
    echo "$libs"
}

# Print $1 free TCP ports of the loopback address. They are below those that
# the system gives to clients (from 32768 on): one that knocks while a broker is
# down could else be given the broker's own port, and keep it from coming back.
free_ports() {
    perl -MIO::Socket::INET -e '
        my @sockets;
        while (@sockets < $ARGV[0]) {
            my $socket = IO::Socket::INET->new(LocalAddr => "127.0.0.1", LocalPort => 10000 + int(rand(22000)), Listen => 1);
            push @sockets, $socket if $socket;
        }
        print join(" ", map { $_->sockport } @sockets), "\n"' "$1"
}

# Write server.properties for a broker in $1 on the ports $2, then format.
configure() {
    local dir=$1 argument name listeners='' advertised='' map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT
    local -a ports properties=() scram=()
    read -ra ports <<<"$2"
    shift 2
    local port=${ports[0]} controller_port=${ports[1]}
    ports=("${ports[@]:2}")
    for argument; do
        case $argument in
            listener:*)
                name=${argument#*:} && name=${name%%=*}
                listeners+=$name://127.0.0.1:${ports[0]},
                advertised+=$name://localhost:${ports[0]},
                map+=,$name:${argument#*=}
                ports=("${ports[@]:1}")
                ;;
            version:*) ;;
            scram:*) scram+=(--add-scram "${argument#*:}") ;;
            *) properties+=("$argument") ;;
        esac
    done
    cat >"$dir/server.properties" <<END
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller_port
listeners=${listeners}PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller_port
listener.security.protocol.map=$map
advertised.listeners=${advertised}PLAINTEXT://127.0.0.1:$port
controller.listener.names=CONTROLLER
log.dirs=$dir/data
num.partitions=1
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=1
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=1
group.initial.rebalance.delay.ms=0
log.retention.ms=-1
log.retention.check.interval.ms=1000
log.segment.delete.delay.ms=1000
message.max.bytes=10485760
END
    [ ${#properties[@]} -eq 0 ] || printf '%s\n' "${properties[@]}" >>"$dir/server.properties"
    rm -rf "$dir/data"
    java -cp "$libs/*" -Dorg.slf4j.simpleLogger.defaultLogLevel=error kafka.tools.StorageTool \
        format -t "$(head -c 16 /dev/urandom | base64 | tr '+/' 'Aa' | cut -c 1-22)" \
        -c "$dir/server.properties" ${scram[@]+"${scram[@]}"} >"$dir/format.log" 2>&1 || { cat "$dir/format.log" >&2; return 1; }
}

# Start the broker of $1 and wait until it answers a metadata request.
launch() {
    local dir=$1 port
    port=$(sed -n 's/^advertised.listeners=.*:\([0-9]*\)$/\1/p' "$dir/server.properties")
    (
        cd "$dir"
        exec 0</dev/null 1>>broker.log 2>&1 8>&- 9>&-
        exec java -Xmx"${MD_TEST_KAFKA_HEAP:-1g}" -XX:TieredStopAtLevel="${MD_TEST_KAFKA_JIT:-4}" -XX:+UseSerialGC \
            -Dorg.slf4j.simpleLogger.defaultLogLevel=warn -Djava.awt.headless=true -Djava.io.tmpdir="$dir" -XX:-UsePerfData \
            -cp "$libs/*" kafka.Kafka server.properties
    ) &
    echo $! >"$dir/broker.pid"
    while ! kafka_tool wait "127.0.0.1:$port" 1 >/dev/null 2>&1; do
        server_is_running "$(cat "$dir/broker.pid")" "$dir" || kill -0 "$(cat "$dir/broker.pid")" 2>/dev/null || return 1
    done
    echo "127.0.0.1:$port"
}

start() {
    local dir=$1 ports try n=2 argument version=''
    shift
    mkdir -p "$dir"
    dir=$(cd "$dir" && pwd -P)
    for argument; do
        case $argument in
            listener:*) n=$((n + 1)) ;;
            version:*) echo "${argument#*:}" >"$dir/version" ;;
        esac
    done
    [ ! -e "$dir/version" ] || version=$(cat "$dir/version")
    libs=$(kafka_libs "$version")
    if [ -e "$dir/server.properties" ]; then
        launch "$dir" && return
    else
        # Another process can take a port between our look and the start.
        for try in 1 2 3; do
            ports=$(free_ports $n)
            configure "$dir" "$ports" "$@" || return 1
            launch "$dir" && return
            grep -q 'Address already in use' "$dir/broker.log" || break
        done
    fi
    echo "broker.sh: Apache Kafka did not start (try $try)" >&2
    tail -n 30 "$dir/broker.log" >&2
    return 1
}

# End the broker of $1 with signal $2 and wait until it is gone.
stop() {
    local dir pid
    dir=$(cd "$1" && pwd -P)
    pid=$(cat "$dir/broker.pid")
    server_is_running "$pid" "$dir" || return 0
    kill "-${2:-TERM}" "$pid"
    while server_is_running "$pid" "$dir"; do sleep 0.05; done
    rm -f "$dir/broker.pid"
}

case ${1-} in
    start | stop) "$@" ;;
    *) sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2 && exit 2 ;;
esac
