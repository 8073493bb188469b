#!/bin/sh
# How many of wrk's connections are really established, and how long does that take? wrk tells what its own
# client saw; handshake judges by the wire. As root, or through sudo: wrk itself runs as you.
#
#   examples/wrk.sh                             a small server on 127.0.0.1, started and stopped here
#   examples/wrk.sh http://10.0.0.2:8080/ eth0  a server of yours, by the interface towards it
#
# HANDSHAKE is the command, if it is not on the PATH. The exit code is handshake's: 0, or 1 when an expectation failed.
set -eu
url=${1:-http://127.0.0.1:8080/}
interface=${2:-lo}
port=$(echo "$url" | sed -nE 's|^https?://[^/]*:([0-9]+)(/.*)?$|\1|p')
folder=$(mktemp -d)
server=
trap 'kill $server 2> /dev/null || true; rm -rf "$folder"' EXIT

if [ $# -eq 0 ]; then
    echo hello > "$folder/index.html"
    python3 -m http.server --bind 127.0.0.1 --directory "$folder" "$port" > "$folder/log" 2>&1 &
    server=$!
    # Its socket is there once the kernel lists it as listening (0A).
    until grep -q "^ *[0-9]*: 0100007F:$(printf %04X "$port") .* 0A " /proc/net/tcp; do
        kill -0 $server || { cat "$folder/log" >&2; exit 1; }
        sleep 0.05
    done
fi

# A server of HTTP/1.0 closes after each answer: every request is a handshake. Four at a time fit its accept queue.
"${HANDSHAKE:-handshake}" check -i "$interface" --port "$port" \
    --expect 'completed >= 100' \
    --expect 'completed / attempts >= 99.9%' \
    --expect 'half_open == 0' \
    --expect 'p99(connect) < 900ms' \
    -- wrk --threads 1 --connections 4 --duration 2s "$url"
