#!/bin/sh
# The first and only process of the emulated machine. xtask/src/kernels.rs looks for the marks that it prints.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
insmod /sch_ingress.ko
insmod /cls_bpf.ko
insmod /veth.ko
ip link set lo up
mkdir /www
echo page > /www/page
httpd -p 80 -h /www
echo "kernel $(cat /proc/sys/kernel/osrelease)"

# A host at the far end of each veth.
unshare -n sleep 10000 &
far=$!
until [ "$(readlink /proc/$far/ns/net)" != "$(readlink /proc/$$/ns/net)" ]; do
    sleep 1
done
there() {
    nsenter -t $far -n "$@"
}

# Watches loopback, and what else the arguments say. Waits until it is attached to.
start() {
    : > /said
    handshake watch -i lo -o json "$@" > /report 2> /said &
    agent=$!
    until grep -q '^attached lo' /said; do
        kill -0 $agent 2> /dev/null || break
        sleep 1
    done
    # What is left of root's privileges.
    grep -E '^(Uid|CapPrm|NoNewPrivs|Seccomp):' /proc/$agent/status
    # The instructions that the verifier processed for each program; a million is its limit.
    echo "verified: $(cat /proc/$agent/fdinfo/* 2> /dev/null | grep verified_insns | sort -u)"
}

# Makes an interface that the agent wants, and connects to this host from its far end.
appear() {
    ip link add hs0 type veth
    ip link set veth0 netns $far
    ip addr add 10.9.0.1/24 dev hs0
    ip link set hs0 up
    there ip addr add 10.9.0.2/24 dev veth0
    there ip link set veth0 up
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        grep -q '^attached hs0' /said && break
        sleep 1
    done
    for _ in 1 2 3 4 5; do
        there wget -q -O /dev/null http://10.9.0.1/page
    done
}

# Ends the agent, and prints what it has said and reported.
end() {
    kill -TERM $agent
    wait $agent
    code=$?
    cat /said /report
    echo "exit $code"
}

# Tries one hook: attaches, makes traffic on loopback and on an interface that appears, and prints the report.
try() {
    echo "<$1>"
    start -i 'hs*' --direction both --hook "$1"
    for _ in 1 2 3 4 5; do
        wget -q -O /dev/null http://127.0.0.1/page
    done
    wget -q -O /dev/null http://127.0.0.1:81/ 2> /dev/null
    appear
    end
    ip link del hs0
    echo "</$1>"
}

# Runs in a control group of version 2 that the defaults do not fit, with what is said to fit. Without egress,
# for which this kernel has clsact alone, no privilege is left: an interface appears then too.
squeezed() {
    echo "<79 MiB>"
    group=/sys/fs/cgroup/small
    mount -t cgroup2 cgroup /sys/fs/cgroup
    echo +memory > /sys/fs/cgroup/cgroup.subtree_control
    mkdir $group
    echo 79M > $group/memory.max
    echo $$ > $group/cgroup.procs
    handshake watch -i lo > /report 2> /said
    echo "refused: exit $?: $(cat /said)"
    flows=$(cat /said)
    flows=${flows##*--max-flows }
    start -i 'hs*' --direction ingress --one-sided --hook xdp-generic --max-flows "${flows%% *}"
    appear
    end
    echo "peak $(cat $group/memory.peak), $(grep '^oom_kill ' $group/memory.events)"
    echo $$ > /sys/fs/cgroup/cgroup.procs
    ip link del hs0
    echo "</79 MiB>"
}

# Names the processes of both ends. The server is older than the agent, and the clients have ended.
processes() {
    echo "<--process>"
    start -i 'hs*' --direction both --hook clsact --max-flows 10000 --process --flows
    appear
    end
    ip link del hs0
    echo "</--process>"
}

# Tries one hook with the lines of -vv, and with evidence. The other arguments go to handshake.
explain() {
    echo "<-vv $1>"
    start --hook "$@" --port 80 --port 81 -vv --evidence /evidence
    wget -q -O /dev/null http://127.0.0.1/page
    wget -q -O /dev/null http://127.0.0.1:81/ 2> /dev/null
    sleep 1
    end
    echo "evidence: $(grep -c '^verdict   refused' /evidence/summary.md)"
    echo "</-vv $1>"
}

try clsact
try xdp-generic
squeezed
processes
explain clsact --direction both
explain xdp-generic
poweroff -f
