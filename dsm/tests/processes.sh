# processes.sh - for hosts.sh and slurm.sh: processes that outlive the script that started them. To be sourced, with the
# state folder in $D. In $D/NAME.pid: pid and start time, which no later process of that pid has.

record() { # NAME: that is the present process, as /proc here says it
  local stat fields
  read -r stat </proc/self/stat
  read -ra fields <<<"${stat##*) }" # from the third on: proc(5)
  echo "${stat%% *} ${fields[19]}" >"$D/$1.pid"
}
pid_of() { # NAME: prints its pid, if it lives
  local pid start stat fields
  { read -r pid start <"$D/$1.pid" && read -r stat <"/proc/$pid/stat"; } 2>/dev/null || return 1
  read -ra fields <<<"${stat##*) }"
  [ "${fields[19]}" = "$start" ] && [[ ${fields[0]} != [ZX] ]] && echo "$pid"
}
lives() { pid_of "$1" >/dev/null; }
ended() { ! lives "$1"; }
