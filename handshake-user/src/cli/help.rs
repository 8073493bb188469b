//! What the help says below the options: the language, examples, exit codes. Lines are short, because a
//! terminal of 80 columns would wrap them amid a sentence.

pub(super) const GENERAL: &str = "\
Each option can be set by a variable:
HANDSHAKE_HALF_OPEN_AFTER=5s is --half-open-after 5s.

Examples:
  handshake -i eth0 --port 443             watch attempts to port 443
  handshake why -i eth0 :443               why do its clients not connect?
  handshake check -i lo --expect 'half_open == 0' -- ./load.sh
                                           check what a load does on the wire
  handshake replay capture.pcapng --flows  read a capture, without privileges
  handshake diff old.json new.json         what changed between two reports
  handshake join client.jsonl server.jsonl where was it lost between two hosts?

Exit codes:
  0  done                                     3  inconclusive: data was lost
  1  an expectation or the command failed     4  cannot load, attach or write
  2  usage, or an unreadable input file       5  permission";

pub(super) const WATCH: &str = "\
Each option can be set by a variable:
HANDSHAKE_HALF_OPEN_AFTER=5s is --half-open-after 5s.

Examples:
  handshake watch -i eth0 --port 443       watch attempts to port 443
  handshake watch -i 'veth*' --wait        also interfaces that come later
  handshake watch -i eth0 --for 30s -o json --flows
                                           a report after 30 s with each flow

Exit codes:
  0  done                                     4  cannot load, attach or write
  2  usage                                    5  permission";

pub(super) const CHECK: &str = "\
An expectation compares figures of the report: counts, times, shares or rates.
  completed >= 1000                a path in the JSON report, without tcp.
  completed / attempts >= 99.9%    a share; inconclusive without an attempt
  half_open + refused == 0         sums and differences
  p99(connect) < 2ms               of all attempts; p50, p90, p95, p99.9, max
  p99(connect of completed) < 2ms  of those that connected, as the other legs
  rate(completed) >= 500/s         from the command's start to its exit
  attempts{port=443} == 200        of some services, by port= and address=
  p99(connect{port=443}) < 2ms     of some services; of the legs connect alone

Examples:
  handshake check -i lo --expect 'completed > 99; half_open == 0' -- ./load.sh
  handshake check -i eth0 --for 30s --expect 'p99(connect) < 20ms' -o json
  handshake check --list-metrics   list all figures with units and meanings

Exit codes:
  0  every expectation was met                3  inconclusive, or nothing ran
  1  an expectation or the command failed     4  cannot load, attach or write
  2  usage, an invalid expression or command  5  permission
  130, 143  interrupted";

pub(super) const WHY: &str = "\
It looks until 30 attempts have had the time of --half-open-after, at most
10 s, and gives one answer.

Examples:
  handshake why -i eth0 :443       why do clients of port 443 not connect?
  handshake why -i eth0            what fails most?

Exit codes:
  0  healthy                                  3  not enough was seen
  1  something is wrong                       4  cannot load, attach or write
  2  usage                                    5  permission";

pub(super) const SERVE: &str = "\
Each option can be set by a variable: HANDSHAKE_METRICS_LISTEN=off is
--metrics-listen off. Its key in the file is metrics-listen. Options go before
variables, variables before the file.

Examples:
  handshake serve -i eth0          metrics at http://127.0.0.1:9477/metrics
  handshake serve --config handshake.toml --check-config
  handshake serve -i eth0 --service api=10.0.0.0/8:443 --service dns=:53

Signals:
  SIGHUP   read the file again: names, labels and exporters; for the rest
           'restart needed' is said
  SIGTERM  detach and end

Exit codes:
  0  stopped                                  4  cannot load, attach or write
  2  usage, or a fault in the file            5  permission";

pub(super) const DIFF: &str = "\
Reports are those of 'watch', 'check' and 'replay' with -o json or jsonl, and
of --report. The figures that differ are listed, those that became worse first.

An expectation is one of 'check', and compares two reports by these:
  change(p99(connect)) <= 20%      the change as a share of the old value
  change(completed / attempts) >= -0.5%
                                   of a share, the difference: half a point
  new(refused) <= old(refused) + 3
                                   the value in either; without them, in NEW

Examples:
  handshake diff main.json pr.json
  handshake diff main.json pr.json --expect 'change(p99(connect)) <= 20%'

Exit codes:
  0  every expectation was met     2  usage, or a file that is no report
  1  an expectation failed         3  a report is inexact, or nothing ran";

pub(super) const REPLAY: &str = "\
Each option can be set by a variable:
HANDSHAKE_HALF_OPEN_AFTER=5s is --half-open-after 5s.

Examples:
  handshake replay capture.pcapng --flows  the report, and each flow
  handshake replay capture.pcapng --tui    the same on the terminal's screens
  handshake replay capture.pcapng --ladder 10.0.0.2:443
                                           its handshakes packet by packet

Exit codes:
  0  done                                  4  cannot write
  2  usage, or an unreadable capture";

pub(super) const JOIN: &str = "\
Each host's account is taken meanwhile, at the same time, by one command:
  handshake -i eth0 --port 443 -o jsonl --events all --flows > client.jsonl

Sequence numbers pass address translation, so they say which attempt of one
account is which of the other. Captures make accounts too:
  handshake replay client.pcap -o jsonl --flows > client.jsonl

Examples:
  handshake join client.jsonl server.jsonl
  handshake join client.jsonl server.jsonl -o json --flows
                                 an object an attempt, and one of all
  handshake join client/ server/ all files of two folders, packed or not

Exit codes:
  0  joined                      3  no attempt is in both accounts
  2  usage, or unreadable files  4  not enough memory, or cannot write";

pub(super) const DOCTOR: &str = "\
Examples:
  sudo handshake doctor            of the interfaces of the default routes
  sudo handshake doctor -i eth0    of this one

Exit codes:
  0  handshake can run             4  it cannot
  2  usage                         5  a permission is missing";
