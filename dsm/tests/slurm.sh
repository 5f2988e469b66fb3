#!/bin/bash
# slurm.sh - a Slurm cluster of N nodes on this machine, to start jobs on with salloc, sbatch and srun.
#
#   # make deps-slurm
#   # eval "$(dsm/tests/slurm.sh up 3)"; export DSM_SLURM_DIR SLURM_CONF     # `up` prints NAME=value lines
#   # salloc -N2 -n3 build/bin/dsmexec - demo
#   # dsm/tests/slurm.sh down            # nothing is left; also after an `up` that failed or was killed; also twice
#
# The nodes ln1 ... lnN are one slurmd each, and share all that this machine has: files, network, host name. They,
# munged and slurmctld run in a pid namespace, pid_namespaces(7): when its first process is killed, the kernel kills all
# others, and so every step and all that steps have started. /etc/slurm and /etc/munge are neither used nor changed.
#
# Environment: DSM_SLURM_DIR   the state folder; for `up` a new or an empty one (default: a new one in ${TMPDIR:-/tmp})
# Exit: 0, 1 (failed), 2 (misused), 77 (this machine does not allow it, or has no Slurm). Needs root.
set -euo pipefail
PATH=$PATH:/usr/sbin:/sbin
self=$(readlink -e "$0")
D=${DSM_SLURM_DIR:-}
limit_s=30 # for what is waited for; far beyond what it takes
cpus=4     # of each node, however many this machine has

die() { echo "slurm.sh: $1" >&2; exit "${2:-1}"; }
last_words() { tail -qn 1 "$D"/*.log 2>/dev/null | tail -n 1; }
wait_for() { # WHAT CONDITION...
  local end=$((SECONDS + limit_s))
  until "${@:2}"; do
    [ "$SECONDS" -lt "$end" ] || die "$1: not within $limit_s s; last words: $(last_words)"
    sleep 0.05
  done
}

# The cluster as one process: "cluster".
source "$(dirname "$self")/processes.sh"

# ---- up --------------------------------------------------------------------------------------------------------------

need() {
  local tool why
  [ "$(id -u)" = 0 ] || die 'a Slurm cluster needs root' 77
  for tool in munged slurmctld slurmd sinfo srun unshare; do
    command -v "$tool" >/dev/null || die "a Slurm cluster needs $tool, which is not there: make deps-slurm" 77
  done
  why=$(unshare --pid --fork --kill-child=KILL --mount-proc true 2>&1) ||
    die "no Slurm cluster on this machine: ${why##*$'\n'}" 77
}
is_free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; } # PORT
pick_ports() { # N + 1 in a row, below those that the kernel hands out. Whoever takes one of them meanwhile fails `up`.
  local i
  for ((port = 20000 + RANDOM % 1000 * 10; ; port += N + 1)); do
    [ "$port" -lt 32000 ] || die 'no free ports'
    for ((i = 0; i <= N; i++)); do is_free $((port + i)) || continue 2; done
    return
  done
}
make_files() {
  local host
  host=$(uname -n)
  mkdir -m 700 "$D/munge" "$D/state"
  mkdir -m 755 "$D/socket"
  (umask 077 && head -c 1024 /dev/urandom >"$D/munge/key")
  cat >"$D/slurm.conf" <<EOF
ClusterName=dsm
SlurmctldHost=${host%%.*}(127.0.0.1)
SlurmctldPort=$port
SlurmctldPidFile=$D/state/slurmctld.pid
StateSaveLocation=$D/state
SlurmdPidFile=$D/state/slurmd-%n.pid
SlurmdSpoolDir=$D/state/spool-%n
SlurmUser=root
SlurmdUser=root
SlurmdParameters=config_overrides
AuthType=auth/munge
AuthInfo=socket=$D/socket/munge
CredType=cred/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SchedulerType=sched/builtin
SchedulerParameters=batch_sched_delay=0
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
InactiveLimit=0
KillWait=2
ReturnToService=2
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
NodeName=ln[1-$N] NodeHostname=${host%%.*} NodeAddr=127.0.0.1 Port=[$((port + 1))-$((port + N))] CPUs=$cpus
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE OverSubscribe=FORCE:32
EOF
  echo 'CgroupAutomount=no' >"$D/cgroup.conf"
}
all_idle() {
  lives cluster || die "the cluster has ended: $(last_words)"
  [ "$(sinfo -h -t idle -o %D 2>>"$D/up.log")" = "$N" ]
}
up() { # N
  N=$1
  need
  D=$(readlink -m "${D:-$(mktemp -u "${TMPDIR:-/tmp}/dsm_slurm.XXXXXXXXXX")}")
  [[ $D =~ ^[A-Za-z0-9/._+-]{1,80}$ ]] || die "'$D': a short path without blanks and the like is needed"
  [ ! -e "$D" ] || [ -z "$(ls -A "$D")" ] || die "$D is not empty"
  trap 'rm -f "$D/up.pid"; down' EXIT
  trap 'exit 130' INT TERM HUP PIPE
  [ -d "$D" ] || mkdir "$D"
  [ -O "$D" ] || die "$D is somebody else's"
  chmod 755 "$D"
  record up
  echo "DSM_SLURM_DIR=$D"
  pick_ports
  make_files
  export SLURM_CONF=$D/slurm.conf
  # Neither the caller's environment nor its ignored signals.
  env -i --default-signal PATH="$PATH" DSM_SLURM_DIR="$D" SLURM_CONF="$SLURM_CONF" \
    setsid bash "$self" cluster "$N" </dev/null >>"$D/cluster.log" 2>&1 &
  wait_for 'the cluster' lives cluster
  wait_for "$N idle nodes" all_idle
  echo "SLURM_CONF=$SLURM_CONF"
  rm "$D/up.pid"
  trap - EXIT
}
cluster() { # N: becomes the process that the cluster hangs on
  record cluster
  exec unshare --pid --fork --kill-child=KILL --mount-proc bash "$self" daemons "$1"
}
daemons() { # N: the first process of the namespace. It ends, and the cluster with it, as soon as one daemon does.
  local i
  # --force: the folders above may be writable by others, as /tmp is.
  munged --force --foreground --key-file="$D/munge/key" --socket="$D/socket/munge" --pid-file="$D/munge/pid" \
    --log-file="$D/munge/log" --seed-file="$D/munge/seed" &
  wait_for 'munged' test -S "$D/socket/munge"
  slurmctld -D -i -f "$SLURM_CONF" >"$D/slurmctld.log" 2>&1 &
  for ((i = 1; i <= $1; i++)); do
    mkdir "$D/state/spool-ln$i"
    slurmd -D -N "ln$i" -f "$SLURM_CONF" >"$D/slurmd-ln$i.log" 2>&1 &
  done
  wait -n
  echo "slurm.sh: a daemon has ended, with $?"
}

# ---- down ------------------------------------------------------------------------------------------------------------

down() {
  local pid first
  [ -d "$D" ] || return 0
  if [ -e "$D/slurm.conf" ] || [ -e "$D/up.pid" ]; then
    all_ended() {
      if pid=$(pid_of up); then kill -KILL "$pid"; fi # first of all: it starts nothing more
      if pid=$(pid_of cluster); then
        # unshare(1) ends when the first process of the namespace has, and that ends after all others.
        first=$(cat "/proc/$pid/task/$pid/children")
        kill -KILL ${first:-"$pid"}
      fi
      ended up && ended cluster
    } 2>/dev/null
    wait_for "the end of what $D has started" all_ended
  elif [ -n "$(ls -A "$D")" ]; then
    die "$D was not made by \`up\`"
  fi
  rm -rf "$D"
}

usage() { die "$1; the head of $self says how it is used" 2; }
case ${1:-} in
  up) [[ ${2:-} =~ ^[1-9]$ ]] || usage "up: N is 1 to 9, not '${2:-}'"; up "$2" ;;
  down) [ -n "$D" ] || usage 'down: set DSM_SLURM_DIR'; down ;;
  cluster | daemons) "$1" "$2" ;; # what `up` starts
  *) usage "'${1:-}' is no verb" ;;
esac
