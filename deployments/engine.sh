#!/usr/bin/env bash
# Makes sure that a Docker Engine answers, for `make demo`, `make test` and CI.
#
#   deployments/engine.sh                    use the Engine that answers, or get one
#   deployments/engine.sh --started-pid F    the same; where this starts dockerd, its process id goes to F
#   deployments/engine.sh --stop F           stop the dockerd whose id is in F (none: nothing to do)
#
# The Engine that already answers (DOCKER_HOST, else /var/run/docker.sock) is used as it is. Where none
# does, on Debian or Ubuntu as root, it asks, then installs docker.io with apt and starts dockerd; CI=true
# consents. Anywhere else it says what to do and ends with exit code 1.
set -euo pipefail

log=${TOWPATH_DOCKERD_LOG:-/var/log/towpath-dockerd.log}
start_bound=60 # seconds that a dockerd may take until it answers; 5 are usual

say() { echo "engine: $*" >&2; }

# Exit code 0 when an Engine answers within 10 s. The docker program is only one way to ask: an Engine can
# be there without it.
answers() {
  local socket=${DOCKER_HOST:-unix:///var/run/docker.sock}
  if command -v docker >/dev/null; then
    timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1
  elif [ "${socket#unix://}" = "$socket" ]; then
    return 1
  elif command -v curl >/dev/null; then
    curl -fsS --max-time 10 --unix-socket "${socket#unix://}" http://engine/_ping >/dev/null 2>&1
  else
    perl -MIO::Socket::UNIX -e '
      alarm 10;
      my $s = IO::Socket::UNIX->new(Peer => $ARGV[0]) or exit 1;
      print $s "GET /_ping HTTP/1.0\r\n\r\n";
      exit(<$s> =~ m{^HTTP/1\.\d 200} ? 0 : 1)' "${socket#unix://}" 2>/dev/null
  fi
}

wait_until_answers() {
  local end=$((SECONDS + start_bound))
  while ! answers; do
    [ "$SECONDS" -lt "$end" ] || return 1
    sleep 0.5
  done
}

debian_like() {
  [ -r /etc/os-release ] && (. /etc/os-release && case " ${ID:-} ${ID_LIKE:-} " in *debian* | *ubuntu*) ;; *) false ;; esac)
}

explain_and_fail() {
  cat >&2 <<TEXT
engine: no Docker Engine answers at ${DOCKER_HOST:-/var/run/docker.sock} ($1).
  Towpath builds and runs containers, so it needs one (20.10 or newer). Do one of these, then run the same command again:
    - Debian or Ubuntu, as root:  apt-get install --no-install-recommends docker.io iptables && systemctl start docker
    - somewhere else:             https://docs.docker.com/engine/install/
    - one is installed already:   start it (systemctl start docker), and let $(id -un) reach its socket
                                  (usermod -aG docker $(id -un), then log in again)
    - one is on another machine:  export DOCKER_HOST=ssh://user@host  (or unix:///path/to/docker.sock)
TEXT
  exit 1
}

consent() {
  [ "${CI:-}" = true ] && return 0
  [ -t 0 ] || return 1
  local answer
  read -r -p "No Docker Engine answers here. $1 [y/N] " answer
  [[ "$answer" =~ ^[yY] ]]
}

install_engine() {
  consent "Install docker.io and iptables with apt, and start dockerd?" ||
    explain_and_fail "not installed: nobody agreed; CI=true agrees"
  say "installing docker.io with apt (it stays installed)"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >&2
  apt-get install -y -q --no-install-recommends docker.io iptables ca-certificates >&2
  # A separate package where docker.io does not bring the docker program (Debian 13).
  command -v docker >/dev/null || apt-get install -y -q --no-install-recommends docker-cli >&2 || true
}

# Debian's kernel packages mount the control groups through systemd; a container or a bare init may not have.
mount_cgroups() {
  mountpoint -q /sys/fs/cgroup && return 0
  say "mounting control groups, which nothing here has mounted"
  if grep -qw cgroup2 /proc/filesystems && [ "$(awk '$4==1 && $2!=0' /proc/cgroups | wc -l)" -eq 0 ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    return
  fi
  mount -t tmpfs -o mode=755 cgroup /sys/fs/cgroup
  local controller
  for controller in $(awk '$4==1 {print $1}' /proc/cgroups); do
    mkdir -p "/sys/fs/cgroup/$controller"
    mount -t cgroup -o "$controller" cgroup "/sys/fs/cgroup/$controller" || rmdir "/sys/fs/cgroup/$controller"
  done
}

start_engine() {
  if [ -d /run/systemd/system ] && systemctl start docker 2>/dev/null && wait_until_answers; then
    say "started by systemd (systemctl stop docker stops it)"
    return
  fi
  mount_cgroups
  say "starting dockerd (log: $log)"
  mkdir -p "$(dirname "$log")"
  # Nothing of ours may stay open in it: a pipe held by a daemon would keep its reader waiting for ever.
  setsid dockerd >>"$log" 2>&1 </dev/null 9>&- &
  local pid=$!
  [ -z "$pidfile" ] || echo "$pid" >"$pidfile"
  wait_until_answers || {
    tail -n 20 "$log" >&2
    explain_and_fail "dockerd was started as process $pid and did not answer within $start_bound s; its last lines are above"
  }
}

stop_engine() {
  [ -s "$1" ] || return 0
  local pid end=$((SECONDS + 60))
  pid=$(cat "$1")
  rm -f "$1"
  say "stopping the dockerd that was started here (process $pid)"
  kill -TERM "$pid" 2>/dev/null || return 0
  while kill -0 "$pid" 2>/dev/null; do
    [ "$SECONDS" -lt "$end" ] || { kill -KILL "$pid"; return 0; }
    sleep 0.2
  done
}

pidfile=
case "${1:-}" in
  "") ;;
  --started-pid) pidfile=${2:?a file name} ;;
  --stop) stop_engine "${2:?a file name}"; exit 0 ;;
  *) sed -n '2,/^set/{/^set/d;s/^# \{0,1\}//;p}' "$0" >&2; exit 2 ;;
esac

answers && exit 0
[ -z "${DOCKER_HOST:-}" ] || explain_and_fail "DOCKER_HOST says to use it, so no other is started"
[ "$(id -u)" = 0 ] || explain_and_fail "and only root can install or start one"
if ! command -v dockerd >/dev/null; then
  debian_like || explain_and_fail "and this is neither Debian nor Ubuntu"
  install_engine
fi
answers && exit 0 # installing may have started it
start_engine
