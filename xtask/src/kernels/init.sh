#!/bin/sh
# What the emulated machine runs first, and all it runs. The marks are for xtask/src/kernels.rs.
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

# Tries one hook: attaches, has traffic, and shows the report.
try() {
    echo "<$1>"
    : > /said
    handshake watch -i lo --hook "$1" --direction both -o json > /report 2> /said &
    agent=$!
    until grep -q '^attached' /said; do
        kill -0 $agent 2> /dev/null || break
        sleep 1
    done
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

try clsact
try xdp-generic
poweroff -f
