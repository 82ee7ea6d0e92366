#!/usr/bin/env bash
# A Slurm of one node on this machine, for a test: `setup.sh start FOLDER`, `setup.sh stop FOLDER`; Debian's slurm-wlm
# and munge are needed. All of it lies in FOLDER and listens on the loopback interface. To use it, set
# SLURM_CONF=FOLDER/slurm.conf and put FOLDER/bin first in PATH. Cores, memory and GPU of the node are made up, so that
# whatever a profile asks for is granted.
set -euo pipefail
export PATH="$PATH:/usr/sbin"
action=${1:?start or stop} folder=$(realpath -m "${2:?a folder}") host=$(hostname -s)
export SLURM_CONF=$folder/slurm.conf

stop() {
  for daemon in slurmd slurmctld munged; do
    [ ! -s "$folder/$daemon.pid" ] || kill "$(cat "$folder/$daemon.pid")" 2>/dev/null || true
  done
}

start() {
  mkdir -p "$folder/state" "$folder/spool" "$folder/bin"
  chmod 755 "$folder"
  # A step starts with another environment than its job, without SLURM_CONF.
  printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' "$SLURM_CONF" "$(command -v srun)" >"$folder/bin/srun"
  chmod 755 "$folder/bin/srun"
  (umask 077 && head -c 1024 /dev/urandom >"$folder/munge.key")
  cat >"$folder/slurm.conf" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=${SLURMCTLD_PORT:-16817}
SlurmdPort=${SLURMD_PORT:-16818}
SlurmUser=$(id -un)
SlurmdUser=$(id -un)
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_interval=2
JobCompType=jobcomp/filetxt
JobCompLoc=$folder/jobs.log
MinJobAge=3600
KillWait=5
ReturnToService=2
GresTypes=gpu
SlurmdParameters=config_overrides
NodeName=$host NodeAddr=127.0.0.1 CPUs=${SLURM_NODE_CPUS:-8} RealMemory=64000 Gres=gpu:1
PartitionName=test Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF
  echo "Name=gpu File=/dev/zero" >"$folder/gres.conf"
  munged --force --socket="$folder/munge.socket" --key-file="$folder/munge.key" --pid-file="$folder/munged.pid" \
    --log-file="$folder/munged.log" --seed-file="$folder/munge.seed"
  slurmctld -c
  slurmd
  for _ in $(seq 60); do
    ! sinfo --noheader --format=%t 2>/dev/null | grep -q idle || return 0
    sleep 0.5
  done
  tail -n 5 "$folder"/*.log >&2
  stop
  return 1
}

"$action"
