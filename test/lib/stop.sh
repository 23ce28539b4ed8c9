# Stop servers by what they left on disk. To be sourced.

# Stop every server that has its pid file (postmaster.pid, broker.pid) under
# $1, and wait until it is gone. A pid counts only while that process still
# works in the directory of its pid file, so a reused pid is never hit.
stop_servers_under() {
    local file pid
    [ -d "$1" ] || return 0
    find "$1" \( -name postmaster.pid -o -name broker.pid \) 2>/dev/null | while IFS= read -r file; do
        pid=$(head -n 1 "$file" 2>/dev/null) || continue
        server_is_running "$pid" "$(dirname "$file")" || continue
        kill -QUIT "$pid" 2>/dev/null || true
        [ "${file##*/}" = postmaster.pid ] || kill -KILL "$pid" 2>/dev/null || true
        while server_is_running "$pid" "$(dirname "$file")"; do sleep 0.05; done
    done
}

# Is $1 a live process that works in directory $2?
server_is_running() {
    [ -n "$1" ] && [ "$(readlink "/proc/$1/cwd" 2>/dev/null)" = "$(readlink -f "$2")" ]
}
