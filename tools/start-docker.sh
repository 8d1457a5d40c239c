#!/usr/bin/env bash
# Make the sandbox's two backends available: Docker (installed and started) and bubblewrap (installed).
# As root on Debian or a derivative it installs and starts what is missing; elsewhere it prints which tests will not run.
# It can be run repeatedly and several times at once: a second engine is never started.
set -uo pipefail
cd /
log=${REASONER_DOCKERD_LOG:-/var/log/reasoner-dockerd.log}
wait_seconds=90

# Asks over the socket, without a client program. An engine on another machine (DOCKER_HOST) is not started here.
answers() {
  local socket=${DOCKER_HOST:-unix://}
  case $socket in
    unix://*) timeout 10 "${PYTHON:-python3}" -I -c '
import http.client, socket, sys
engine = http.client.HTTPConnection("engine")
engine.sock = socket.socket(socket.AF_UNIX)
engine.sock.connect(sys.argv[1] or "/var/run/docker.sock")
engine.request("GET", "/_ping")
sys.exit(engine.getresponse().status != 200)' "${socket#unix://}" >/dev/null 2>&1 ;;
  esac
}
say() { echo "start-docker: $*" >&2; }

# The engine's process id from its pid file, if that process exists and is dockerd: the file remains after a crash or a
# reboot, when the id may belong to another program.
engine_pid() {
  local pid
  for pid in $(cat /var/run/docker.pid 2>/dev/null) $(pidof dockerd 2>/dev/null); do
    [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = dockerd ] || continue
    grep -q '^State:[[:space:]]*[ZX]' "/proc/$pid/status" 2>/dev/null || { echo "$pid"; return; }  # not zombies
  done
  return 1
}

apt_install() {
  export DEBIAN_FRONTEND=noninteractive
  local options=(-y -qq --no-install-recommends -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300)
  apt-get install "${options[@]}" "$@" </dev/null >"$log.apt" 2>&1 && return 0
  { apt-get update -qq && apt-get install "${options[@]}" "$@"; } </dev/null >"$log.apt" 2>&1
}

install_missing() {
  local wanted=()
  command -v dockerd >/dev/null || wanted+=(docker.io)
  command -v bwrap >/dev/null || wanted+=(bubblewrap)
  if [ ${#wanted[@]} -gt 0 ]; then say "installing ${wanted[*]} ..." && apt_install "${wanted[@]}"; fi
  hash -r
  command -v dockerd >/dev/null && command -v bwrap >/dev/null && return 0
  say "apt-get could not install docker.io and bubblewrap (see $log.apt); the tests of what is missing are not run."
}

start_engine() {
  # systemd, if it runs on this machine, restarts the engine after a reboot and keeps its log
  if [ -d /run/systemd/system ]; then
    systemctl start docker </dev/null >/dev/null 2>&1 && return 0
  fi
  rm -f /var/run/docker.pid
  # detached: it continues after this script and its caller have ended, and inherits none of their descriptors
  setsid -f bash -c 'for fd in /proc/self/fd/*; do fd=${fd##*/}; [ "$fd" -gt 2 ] && eval "exec $fd>&-"; done
    exec dockerd' </dev/null >>"$log" 2>&1
}

await_engine() {
  local deadline=$((SECONDS + wait_seconds))
  while [ $SECONDS -lt $deadline ]; do
    answers && return 0
    if ! engine_pid >/dev/null && [ $SECONDS -gt $((deadline - wait_seconds + 5)) ]; then break; fi
    sleep 0.3
  done
  return 1
}

if answers && command -v bwrap >/dev/null; then exit 0; fi
if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
  missing=()
  answers || missing+=("the Docker tests (install docker, start it, and join the group docker)")
  command -v bwrap >/dev/null || missing+=("the bubblewrap tests (install bubblewrap)")
  say "not run on this machine: $(IFS=';'; echo "${missing[*]}"). As root on Debian this script installs them."
  exit 0
fi
exec 9>/var/lock/reasoner-start-docker.lock
flock 9
install_missing
command -v dockerd >/dev/null || exit 0
answers && exit 0
engine_pid >/dev/null || start_engine 9>&-
await_engine && exit 0
# an engine that was shutting down at the first check has ended by now
if ! engine_pid >/dev/null; then start_engine 9>&-; await_engine && exit 0; fi
say "the Docker engine does not answer (see $log: $(tail -n 1 "$log" 2>/dev/null | cut -c1-200)); the Docker tests are not run."
exit 0
