#!/bin/sh
# The first and only process of the emulated machine. xtask/src/kernels.rs looks for the marks that it prints.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
insmod /sch_ingress.ko
insmod /cls_bpf.ko
ip link set lo up
mkdir /www
echo page > /www/page
httpd -p 80 -h /www
echo "kernel $(cat /proc/sys/kernel/osrelease)"

# Attaches by a hook; the other arguments go to handshake.
start() {
    : > /said
    handshake watch -i lo --direction both -o json --hook "$@" > /report 2> /said &
    agent=$!
    until grep -q '^attached' /said; do
        kill -0 $agent 2> /dev/null || break
        sleep 1
    done
    # What is left of root's privileges.
    grep -E '^(Uid|CapPrm|NoNewPrivs|Seccomp):' /proc/$agent/status
    # The instructions that the verifier processed for each program; a million is its limit.
    echo "verified: $(cat /proc/$agent/fdinfo/* 2> /dev/null | grep verified_insns | sort -u)"
}

# Tries one hook: attaches, makes traffic, and prints the report.
try() {
    echo "<$1>"
    start "$1"
    for _ in 1 2 3 4 5; do
        wget -q -O /dev/null http://127.0.0.1/page
    done
    wget -q -O /dev/null http://127.0.0.1:81/ 2> /dev/null
    kill -TERM $agent
    wait $agent
    code=$?
    cat /said /report
    echo "exit $code"
    echo "</$1>"
}

# Tries one hook with the lines of -vv.
explain() {
    echo "<-vv $1>"
    start "$1" --port 80 -vv
    wget -q -O /dev/null http://127.0.0.1/page
    sleep 1
    kill -TERM $agent
    wait $agent
    echo "exit $?"
    cat /said
    echo "</-vv $1>"
}

try clsact
try xdp-generic
explain clsact
explain xdp-generic
poweroff -f
