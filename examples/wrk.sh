#!/bin/sh
# How many of wrk's connections are really established, and how long does that take? wrk reports what its
# client saw, handshake what the wire carried. Run it as root or through sudo; under sudo wrk itself runs as the
# user who called it.
#
#   examples/wrk.sh                             against a server on 127.0.0.1 that this script starts and stops
#   examples/wrk.sh http://10.0.0.2:8080/ eth0  against a server of yours, seen at the interface towards it
#
# HANDSHAKE names the command if it is not on the PATH. The exit code is that of `handshake check`: 0 when every
# expectation was met, 1 when one failed, 3 when the answer is not known.
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
    # Waits until the kernel lists the server's socket as listening (0A).
    until grep -q "^ *[0-9]*: 0100007F:$(printf %04X "$port") .* 0A " /proc/net/tcp; do
        kill -0 $server || { cat "$folder/log" >&2; exit 1; }
        sleep 0.05
    done
fi

# An HTTP/1.0 server closes after each answer, so every request is a handshake. Its accept queue has room for
# four at a time.
"${HANDSHAKE:-handshake}" check -i "$interface" --port "$port" \
    --expect 'completed >= 100' \
    --expect 'completed / attempts >= 99.9%' \
    --expect 'half_open == 0' \
    --expect 'p99(connect) < 900ms' \
    -- wrk --threads 1 --connections 4 --duration 2s "$url"
