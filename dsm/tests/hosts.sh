#!/bin/bash
# hosts.sh - N hosts on this machine, to start jobs on over ssh: each has its own network, sshd and power switch.
#
#   # eval "$(dsm/tests/hosts.sh up 4)"; export DSM_HOSTS_DIR            # `up` prints NAME=value lines
#   # ssh -F "$DSM_HOSTS_SSH_CONFIG" "${DSM_HOSTS_NAMES%%,*}" hostname   # or by address, IPv4 or IPv6
#   # dsm/tests/hosts.sh cut 1 2         # no packet passes between hosts 1 and 2 any more; 254 is the master
#   # dsm/tests/hosts.sh mend 1 2
#   # dsm/tests/hosts.sh slow 3 2000 10  # host 3: 2000 us each way, 10 of 1000 frames lost; `slow 3 0 0` ends it.
#                                        # After that, options of dsm_slow_link: --jitter-us 100 --seed 7
#   # dsm/tests/hosts.sh crash 1         # host 1 loses power: none of its processes can say goodbye
#   # dsm/tests/hosts.sh status
#   # dsm/tests/hosts.sh down            # nothing is left; also after an `up` that failed or was killed; also twice
#
# A host is what runs in one set of namespaces, namespaces(7), so that hosts share by accident nothing that machines do
# not share:
#   net     eth0, which is a port of the set's switch, and port 22; there is no way beyond the switch
#   pid     its sshd is process 1: when that is killed, the kernel kills all the others
#   mount   this machine's /usr, /etc, /opt, and the project's tree at its path, all read-only; the rest is its own
#   uts     its name          ipc  its System V objects and message queues          cgroup  its /proc/self/cgroup
# The switch is a bridge in one more network namespace; this machine, the master, is its port 254 by the link dsmX. All
# that exists hangs on processes: with them the kernel takes away namespaces, links and mounts.
#
# Environment: DSM_HOSTS_DIR   the state folder; for `up` a new or an empty one (default: a new one in ${TMPDIR:-/tmp})
#              DSM_HOSTS_TREE  the tree that hosts see (default: this file's project); HIDE=1: not the last host
#              DSM_SLOW_LINK   that program (default: build/bin/dsm_slow_link of this file's project)
# Exit: 0, 1 (failed), 2 (misused), 77 (this machine does not allow it). Needs root.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
self=$(readlink -e "$0")
top=$(readlink -e "$(dirname "$self")/../..")
D=${DSM_HOSTS_DIR:-}
limit_s=30 # for what is waited for; far beyond what it takes
started=0
namespaces=(--net --uts --ipc --pid --mount --cgroup --fork --kill-child=KILL)

die() { echo "hosts.sh: $1" >&2; exit "${2:-1}"; }
name() { if [ "$1" = 254 ]; then echo "dsm${X}master"; else echo "dsm${X}h$1"; fi; }
v4() { echo "10.77.$X.$1"; }
v6() { [ ! -e /proc/net/if_inet6 ] || echo "fd77:$X::$1"; } # nothing where the kernel has no IPv6
each() { local i; for ((i = 1; i <= N; i++)); do "$@" "$i"; done; }
in_net() { nsenter --net="/proc/$1/ns/net" "${@:2}"; } # PID COMMAND...
in_switch() { in_net "$switch" "$@"; }
port() { in_switch ip link set "$1" master "$2" up; } # LINK BRIDGE
wait_for() { # WHAT CONDITION...: not longer than all that was started lives
  local end=$((SECONDS + limit_s))
  until "${@:2}"; do
    [ "$(jobs -rp | wc -l)" -ge "$started" ] || die "$1: it ended early: $(tail -n 1 "$D/log")"
    [ "$SECONDS" -lt "$end" ] || die "$1: not within $limit_s s; last words: $(tail -n 1 "$D/log")"
    sleep 0.02
  done
}

# ---- processes that outlive this one ----------------------------------------------------------------------------------

# Whoever calls record() sees the machine's /proc still, and has the machine's pid.
source "$(dirname "$self")/processes.sh"

# All of them share the lock on $D/dsm_hosts.lock, by descriptor 9, until they end. They get neither the caller's
# environment nor its ignored signals.
share_lock() { exec 9<>"$D/dsm_hosts.lock"; flock --shared 9; }
start() {
  env -i --default-signal PATH="$PATH" DSM_HOSTS_DIR="$D" "$@" </dev/null >>"$D/log" 2>&1 &
  started=$((started + 1))
}
end() { # NAME
  local pid
  if pid=$(pid_of "$1") && ! kill -KILL "$pid" 2>/dev/null; then return 0; fi # it has just ended by itself
}
end_host() { # I. Its sockets' last words would keep its network namespace for minutes: they are said once, not 8 times.
  local pid
  pid=$(pid_of "$1") || return 0
  if ! in_net "$pid" sh -c 'echo 1 >/proc/sys/net/ipv4/tcp_orphan_retries'; then echo "$1: not said"; fi >>"$D/log" 2>&1
  end "$1"
}

# ---- up --------------------------------------------------------------------------------------------------------------

need() {
  local tool why
  [ "$(id -u)" = 0 ] || die 'making hosts needs root' 77
  for tool in ip nft sshd ssh ssh-keygen unshare nsenter flock; do
    command -v "$tool" >/dev/null || die "making hosts needs $tool, which is not there" 77
  done
  why=$(unshare "${namespaces[@]}" sh -ec 'mount -t tmpfs probe /tmp; ip link add eth0 type veth peer name eth1
    ip link add br0 type bridge; nft add table bridge probe' 2>&1) || die "no hosts on this machine: ${why##*$'\n'}" 77
}
ssh_config() { # FOLDER of the keys as its reader sees it
  host_config() { printf 'Host %s\n  HostName %s\n' "$(name "$1")" "$(v4 "$1")"; }
  each host_config
  printf '%s\n' 'Host *' "IdentityFile $1/id" "UserKnownHostsFile $1/known_hosts" 'GlobalKnownHostsFile /dev/null' \
    'User root' 'IdentitiesOnly yes' 'StrictHostKeyChecking yes' 'BatchMode yes' 'ConnectTimeout 5'
}
etc_hosts() { # I: what it has in /etc/hosts; its own name as on Debian
  local i own a
  own=$(name "$1")
  [ "$1" != 254 ] || own=$(uname -n)
  printf '%s\n' '127.0.0.1 localhost' '::1 localhost ip6-localhost' "127.0.1.1 $own"
  for i in $(seq "$N") 254; do
    [ "$i" = "$1" ] || for a in $(v4 "$i") $(v6 "$i"); do echo "$a $(name "$i")"; done
  done
}
make_files() { # $D/ssh is the hosts' /etc/ssh: one host key, and one client key by which all reach all
  local i
  mkdir "$D/ssh" "$D/root"
  for i in id host_key; do ssh-keygen -q -t ed25519 -N '' -C dsm_hosts -f "$D/ssh/$i"; done
  echo "dsm${X}h*,10.77.$X.*,fd77:$X::* $(cut -d' ' -f1,2 "$D/ssh/host_key.pub")" >"$D/ssh/known_hosts"
  ssh_config "$D/ssh" >"$D/ssh_config"
  ssh_config /etc/ssh >"$D/ssh/ssh_config"
  printf '%s\n' 'HostKey /etc/ssh/host_key' 'AuthorizedKeysFile /etc/ssh/id.pub' 'StrictModes no' 'PidFile none' \
    'PermitRootLogin prohibit-password' 'PasswordAuthentication no' 'KbdInteractiveAuthentication no' 'UsePAM no' \
    'UseDNS no' 'MaxStartups 100' 'AcceptEnv LANG LC_*' 'Subsystem sftp internal-sftp' >"$D/ssh/sshd_config"
  echo 'root:*:19000:0:99999:7:::' >"$D/shadow" # this machine's root may be locked ('!'): sshd would not let it in
  for i in $(seq "$N") 254; do etc_hosts "$i" >"$D/$i.hosts"; done
}
address() { # PID DEVICE I
  local six=/proc/sys/net/ipv6/conf/$2/disable_ipv6
  in_net "$1" sh -ec "if [ -e $six ]; then echo 0 >$six; fi; ip link set $2 up; ip addr add $(v4 "$3")/24 dev $2"
  [ -z "$(v6 "$3")" ] || in_net "$1" ip addr add "$(v6 "$3")/64" dev "$2" nodad
}
make_switch() { # and picks X: only one can have the link dsmX
  start unshare --net --pid --fork --kill-child=KILL bash "$self" run switch sleep infinity
  wait_for 'the switch' lives switch
  switch=$(pid_of switch)
  in_switch ip link add br0 up type bridge mcast_snooping 0
  in_switch nft 'add table bridge hosts; add set bridge hosts cuts { type ifname . ifname; }
    add chain bridge hosts pass { type filter hook forward priority 0; }
    add rule bridge hosts pass iifname . oifname @cuts drop'
  for ((X = 1; X < 255; X++)); do
    [ -z "$(ip -4 route show root "10.77.$X.0/24")" ] || continue
    if ip link add "dsm$X" type veth peer name p254 netns "$switch" 2>>"$D/log"; then break; fi # somebody has it
  done
  [ "$X" -lt 255 ] || die "no link dsmX with 10.77.X.0/24 can be had: $(tail -n 1 "$D/log")" 77
  echo "$X $N $(cat "/sys/class/net/dsm$X/ifindex") ${HIDE:-0} $tree" >"$D/set"
  port p254 br0
  address $$ "dsm$X" 254
}
start_host() { start unshare "${namespaces[@]}" bash "$self" host "$1"; }
connect_host() { # I
  local pid
  wait_for "host $1" lives "$1"
  pid=$(pid_of "$1")
  ip link add "p$1" netns "$switch" type veth peer name eth0 netns "$pid"
  port "p$1" br0
  in_net "$pid" ip link set lo up
  address "$pid" eth0 "$1"
}
answers() { ssh -F "$D/ssh_config" "$1" true </dev/null >/dev/null 2>>"$D/log"; }
wait_for_sshd() { local a; for a in $(name "$1") $(v6 "$1"); do wait_for "an answer of sshd at $a" answers "$a"; done; }
up() { # N
  N=$1
  need
  tree=$(readlink -e "${DSM_HOSTS_TREE:-$top}") || die "$DSM_HOSTS_TREE is not there"
  D=$(readlink -m "${D:-$(mktemp -u "${TMPDIR:-/tmp}/dsm_hosts.XXXXXXXXXX")}")
  [[ $D =~ ^[A-Za-z0-9/._+-]+$ ]] || die "'$D': for ssh_config a path without blanks and the like is needed"
  [ ! -e "$D" ] || [ -z "$(ls -A "$D")" ] || die "$D is not empty"
  trap 'rm -f "$D/up.pid"; exec 9>&-; started=0; down' EXIT
  trap 'exit 130' INT TERM HUP PIPE
  [ -d "$D" ] || mkdir "$D"
  [ -O "$D" ] || die "$D is somebody else's"
  chmod 700 "$D"
  share_lock
  record up
  echo "DSM_HOSTS_DIR=$D"
  make_switch
  make_files
  each start_host
  each connect_host
  each wait_for_sshd
  printf '%s\n' "DSM_HOSTS_SSH_CONFIG=$D/ssh_config" "DSM_HOSTS_NAMES=$(each name | paste -sd,)" \
    "DSM_HOSTS_V4=$(each v4 | paste -sd,)" "DSM_HOSTS_V6=$(each v6 | paste -sd,)" \
    "DSM_HOSTS_MASTER=$(v4 254),$(v6 254)" "DSM_HOSTS_FILE=$D/254.hosts" # which would be the master's /etc/hosts
  rm "$D/up.pid"
  trap - EXIT
}
show() { mount --rbind "$1" "$2" && mount -o remount,bind,ro "$2"; } # WHAT WHERE
host() { # I: process 1 of that host, from its first moment on
  local f root=$D/root
  record "$1"
  umask 022
  hostname "$(name "$1")"
  mount -t tmpfs -o mode=755 "$(name "$1")" "$root"
  for f in /bin /sbin /lib* /usr /etc /opt; do
    if [ -L "$f" ]; then
      cp -P "$f" "$root$f"
    elif [ -d "$f" ]; then
      mkdir "$root$f"
      show "$f" "$root$f"
    fi
  done
  cd "$root"
  mkdir -p root run/sshd var/log var/tmp tmp proc sys dev
  chmod 1777 var/tmp tmp
  mount -t proc proc proc
  mount -t sysfs sys sys
  mount --rbind /dev dev
  mount -t tmpfs -o mode=1777 shm dev/shm
  show "$D/ssh" etc/ssh
  show "$D/$1.hosts" etc/hosts
  show "$D/shadow" etc/shadow
  if [ "$hide" = 1 ] && [ "$1" = "$N" ]; then
    [ ! -d ".$tree" ] || mount -t tmpfs hidden ".$tree" # it is part of /usr or /opt
  else
    mkdir -p ".$tree"
    show "$tree" ".$tree"
  fi
  # Not pivot_root(8): where this machine is itself a chroot(1), the kernel does not allow it.
  exec chroot . "$(command -v sshd)" -D -e -f /etc/ssh/sshd_config
}

# ---- the other verbs -------------------------------------------------------------------------------------------------

down() {
  local f index=
  [ -d "$D" ] || return 0
  if [ -e "$D/dsm_hosts.lock" ]; then
    end up # first of all: it starts nothing more
    all_ended() {
      for f in "$D"/[0-9]*.pid; do [ ! -e "$f" ] || end_host "$(basename "$f" .pid)"; done
      for f in "$D"/[a-z]*.pid; do [ ! -e "$f" ] || end "$(basename "$f" .pid)"; done
      flock --timeout 0.05 "$D/dsm_hosts.lock" true
    }
    wait_for "the end of what $D has started" all_ended
    # The kernel takes dsmX away some time after the switch.
    [ ! -s "$D/set" ] || read -r X N index _ <"$D/set"
    link_gone() { [ "$(cat "/sys/class/net/dsm$X/ifindex" 2>/dev/null)" != "$index" ]; }
    [ -z "$index" ] || wait_for "the end of dsm$X" link_gone
  elif [ -n "$(ls -A "$D")" ]; then
    die "$D was not made by \`up\`"
  fi
  rm -rf "$D"
}
crash() { # I: the link first, so that no FIN or RST gets out
  in_switch ip link set "p$1" down
  end_host "$1"
  wait_for "the end of host $1" ended "$1"
}
ways() { # I J: both ways, as elements of the set of cuts. The switch's port for a slow host I is sI, not pI.
  local a b
  for a in "p$1" "s$1"; do for b in "p$2" "s$2"; do echo "$a . $b, $b . $a,"; done; done
}
cut_link() { in_switch nft "add element bridge hosts cuts { $(ways "$@") }"; }
mend_link() { cut_link "$@"; in_switch nft "delete element bridge hosts cuts { $(ways "$@") }"; }
slow() { # I DELAY_US LOSS_PERMILLE OPTION...: pI leaves br0 for a bridge bI, and the slow link tI-sI joins the two
  local program=${DSM_SLOW_LINK:-$top/build/bin/dsm_slow_link} i=$1
  there() { in_switch ip link show "$1" >/dev/null 2>&1; }
  gone() { ! there "$1"; }
  if there "b$i"; then
    port "p$i" br0
    end "slow$i"
    wait_for "the end of the slow link $i" gone "s$i"
    in_switch ip link del "b$i"
  fi
  [ "$2 $3" != '0 0' ] || return 0
  [ -c /dev/net/tun ] || die 'a slow link needs /dev/net/tun, which is not there' 77
  [ -x "$program" ] || die "$program is not there: make build/bin/dsm_slow_link"
  share_lock
  start nsenter --net="/proc/$switch/ns/net" --pid="/proc/$switch/ns/pid" bash "$self" run "slow$i" \
    "$program" "t$i" "s$i" --delay-us "$2" --loss-permille "$3" "${@:4}"
  wait_for "the slow link $i" there "s$i"
  in_switch ip link add "b$i" up type bridge mcast_snooping 0
  port "t$i" "b$i"
  port "s$i" br0
  port "p$i" "b$i"
}
status() {
  local i state
  for ((i = 1; i <= N; i++)); do
    state=crashed
    ! lives "$i" || state=up
    ! lives "slow$i" || state+=,slow
    echo "$i $(name "$i") $(v4 "$i") $(v6 "$i") $state"
  done
  in_switch nft list set bridge hosts cuts | sed -n '/elements/,/}/p'
}

usage() { die "$1; the head of $self says how it is used" 2; }
number() { # WHAT TEXT LEAST MOST
  if [[ ! $2 =~ ^(0|[1-9][0-9]{0,8})$ ]] || (($2 < $3 || $2 > $4)); then usage "$1 '$2'"; fi
}
verb=${1:-}
case $verb in
  up) number 'up: N' "${2:-}" 1 100; up "$2"; exit ;;
  run) record "$2"; exec "${@:3}" ;; # `run` and `host` are what `start` starts
  down | status | crash | cut | mend | slow | host) [ -n "$D" ] || usage "$verb: set DSM_HOSTS_DIR" ;;
  *) usage "'$verb' is no verb" ;;
esac
if [ "$verb" = down ]; then down; exit; fi
[ -s "$D/set" ] || die "there are no hosts in $D"
read -r X N _ hide tree <"$D/set"
if [ "$verb" = host ]; then host "$2"; fi
switch=$(pid_of switch) || die "the hosts of $D are no more; \`down\` takes the rest away"
[ "$verb" = status ] || number "$verb: host" "${2:-}" 1 "$N"
[[ $verb != crash && $verb != slow ]] || lives "$2" || die "$verb: host $2 has no power"
case $verb in
  cut | mend) [ "${3:-}" = 254 ] || number "$verb: host" "${3:-}" 1 "$N"; "${verb}_link" "$2" "$3" ;;
  slow) number DELAY_US "${3:-}" 0 60000000; number LOSS_PERMILLE "${4:-}" 0 1000; slow "${@:2}" ;;
  *) "$verb" "${@:2}" ;;
esac
