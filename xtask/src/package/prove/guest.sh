#!/bin/sh
# What a Debian that has booted with systemd does with the package. xtask/src/package/prove/machine.rs looks
# for the marks that it prints.
exec 2>&1
echo "systemd $(systemctl --version | head -n 1)"
metrics() {
    curl --silent --show-error --max-time 10 http://127.0.0.1:9477/metrics
}

echo "<installed>"
apt-get install --quiet --yes /srv/handshake.deb
echo "exit $?"
systemctl is-enabled handshake
systemctl is-active handshake
echo "</installed>"

echo 'interface = ["lo"]' >> /etc/handshake/handshake.toml

# `enable --now` returns when the service has said READY=1, so the first scrape finds it.
echo "<started>"
systemctl enable --now handshake
echo "exit $?"
metrics > /root/first
echo "scrape $?"
systemctl show --property Type,ActiveState,SubState handshake
echo "</started>"

mkdir /www
echo page > /www/page
busybox httpd -p 80 -h /www
for _ in 1 2 3 4 5; do
    curl --silent --output /dev/null http://127.0.0.1/page
done
curl --silent --output /dev/null http://127.0.0.1:81/

echo "<confined>"
agent=$(systemctl show --property MainPID --value handshake)
grep -E '^(Uid|CapPrm|CapEff|CapBnd|CapAmb|NoNewPrivs|Seccomp):' "/proc/$agent/status"
systemd-analyze security --no-pager handshake | tail -n 1
echo "</confined>"

# Longer than WatchdogSec=: a service that does not say WATCHDOG=1 is killed by then.
sleep 40
echo "<served>"
systemctl show --property ActiveState,NRestarts,WatchdogUSec handshake
metrics | grep '^handshake_'
echo "</served>"

# As docs/install.md says it for node_exporter, which is another user.
mkdir -p /run/systemd/system/handshake.service.d
printf '[Service]\nRuntimeDirectory=handshake\nUMask=0022\n' > /run/systemd/system/handshake.service.d/file.conf
echo "<reloaded>"
systemctl daemon-reload
systemctl restart handshake
echo "exit $?"
echo 'metrics-file = "/run/handshake/handshake.prom"' >> /etc/handshake/handshake.toml
systemctl reload handshake
echo "reload $?"
for _ in 1 2 3 4 5 6 7 8 9 10; do
    [ -s /run/handshake/handshake.prom ] && break
    sleep 1
done
setpriv --reuid=65534 --regid=65534 --clear-groups cat /run/handshake/handshake.prom | grep '^handshake_exact'
systemctl show --property ActiveState handshake
echo "</reloaded>"

# A unit that answers in another network, and was there before handshake. docs/install.md says what its process
# takes.
ip netns add far
ip link add near0 type veth peer name far0 netns far
ip address add 192.0.2.1/24 dev near0
ip link set near0 up
ip -n far address add 192.0.2.2/24 dev far0
ip -n far link set far0 up
systemd-run --quiet --unit web busybox httpd -f -p 192.0.2.1:8080 -h /www
printf '[Service]\nAmbientCapabilities=CAP_SYS_PTRACE\nCapabilityBoundingSet=CAP_SYS_PTRACE\nSystemCallFilter=pidfd_getfd\n' \
    > /run/systemd/system/handshake.service.d/process.conf
echo "<owned>"
systemctl daemon-reload
sed -i 's/\["lo"\]/["lo", "near0"]/' /etc/handshake/handshake.toml
printf 'process = true\nworkload = ["web=unit:web.service"]\nevents = "all"\nevents-file = "/var/log/handshake/events.jsonl"\n' \
    >> /etc/handshake/handshake.toml
systemctl restart handshake
echo "exit $?"
for _ in 1 2 3 4 5; do
    ip netns exec far curl --silent --output /dev/null --max-time 10 http://192.0.2.1:8080/page
done
sleep 5
systemctl show --property MainPID web
grep '"192.0.2.1","port":8080' /var/log/handshake/events.jsonl | tail -n 1
metrics | grep '^handshake_workload_'
systemd-analyze security --no-pager handshake | tail -n 1
journalctl --no-pager --unit handshake | tail -n 5
echo "</owned>"

echo "<stopped>"
systemctl stop handshake
echo "exit $?"
systemctl show --property ActiveState,Result,ExecMainStatus handshake
echo "filters: $(tc filter show dev lo ingress)$(tc filter show dev lo egress)"
journalctl --no-pager --unit handshake | tail -n 20
echo "</stopped>"

# What is left of it, but for what came with this script and the logs of apt and dpkg, which name every
# package.
echo "<purged>"
apt-get purge --quiet --yes handshake
echo "exit $?"
find / -xdev \( -path /root -o -path /srv -o -path /proc -o -path /sys \) -prune \
    -o -name '*handshake*' -print |
    sed 's/^/left: /'
getent passwd handshake | sed 's/^/left: /'
dpkg-query --show --showformat '${db:Status-Status}\n' handshake
echo "</purged>"
poweroff -f
