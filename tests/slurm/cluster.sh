#!/usr/bin/env bash
# A SLURM of two nodes on this one machine: `cluster.sh up FOLDER`, `cluster.sh down FOLDER`.
# For throwaway machines: it needs root and Debian's packages, and it owns /etc/slurm while it is up.
# Both nodes are this machine under other names, each with two CPUs and one GPU that is an empty file.
set -euo pipefail
readonly NODES=(node1 node2)

absent() { # the exit code says: not here, which is no failure
    echo "test-slurm: $1" >&2
    exit 69
}

install_packages() {
    command -v slurmctld slurmd munged sbatch >/dev/null && return
    command -v apt-get >/dev/null || absent "needs SLURM, or apt-get to install it"
    { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install --yes --no-install-recommends \
        slurmctld slurmd slurm-client munge; } >"$1/apt.log" 2>&1 || absent "apt-get cannot install SLURM; see $1/apt.log"
}

configure() {
    local state=$1 memory
    memory=$(awk '/MemTotal/ {print int($2 / 1024 * 0.9)}' /proc/meminfo)
    for node in "${NODES[@]}"; do
        mkdir -p "$state/spool-$node"
        touch "$state/gpu-$node"
        echo "NodeName=$node Name=gpu File=$state/gpu-$node"
    done >"$state/gres.conf"
    cat >"$state/slurm.conf" <<CONF
ClusterName=throwaway
SlurmctldHost=$(hostname)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$state/munge.socket
CredType=cred/munge
SlurmctldPidFile=$state/slurmctld.pid
SlurmdPidFile=$state/slurmd-%n.pid
StateSaveLocation=$state/controller
SlurmdSpoolDir=$state/spool-%n
SlurmctldLogFile=$state/slurmctld.log
SlurmdLogFile=$state/slurmd-%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
SwitchType=switch/none
MpiDefault=none
GresTypes=gpu
SlurmdParameters=config_overrides
ReturnToService=2
KillWait=30
MinJobAge=3600
SchedulerParameters=sched_interval=1,batch_sched_delay=0
NodeName=${NODES[0]} NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=17018 CPUs=2 RealMemory=$memory Gres=gpu:1
NodeName=${NODES[1]} NodeHostname=$(hostname) NodeAddr=127.0.0.1 Port=17019 CPUs=2 RealMemory=$memory Gres=gpu:1
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
}

forget_dead_cluster() { # a run of these tests that was killed left its configuration, and no controller
    grep -qs '^ClusterName=throwaway$' /etc/slurm/slurm.conf || return 0
    ! pgrep -x slurmctld >/dev/null || absent "these tests are running already"
    rm -f /etc/slurm/slurm.conf /etc/slurm/gres.conf
}

up() {
    local state=$1
    [ "$(id -u)" = 0 ] || absent "needs root"
    forget_dead_cluster
    [ ! -e /etc/slurm/slurm.conf ] || absent "/etc/slurm/slurm.conf exists: this machine has a SLURM of its own"
    mkdir -p "$state/controller" /etc/slurm
    install_packages "$state"
    configure "$state"
    # Copies in the usual place, because jobs do not inherit SLURM_CONF: Snakemake's plugin drops it.
    cp "$state/slurm.conf" "$state/gres.conf" /etc/slurm/
    head -c 128 /dev/urandom >"$state/munge.key"
    chmod 700 "$state"
    chmod 600 "$state/munge.key"
    munged --socket="$state/munge.socket" --key-file="$state/munge.key" --pid-file="$state/munged.pid" \
        --seed-file="$state/munge.seed" --log-file="$state/munged.log" --force 2>/dev/null
    slurmctld -c
    for node in "${NODES[@]}"; do slurmd -N "$node"; done
    timeout 60 srun --nodes=2 --ntasks=2 --mem=10 --time=1 true || { tail -n 20 "$state"/*.log >&2; exit 1; }
}

stop() { # by its own pid file, the process of that name and no other
    local pid name=$2
    pid=$(cat "$1" 2>/dev/null) && [ "$(cat "/proc/$pid/comm" 2>/dev/null)" = "$name" ] || return 0
    kill "$pid"
    for _ in $(seq 100); do # an ended process that nobody waited for has no command line left
        grep -qs . "/proc/$pid/cmdline" || return 0
        sleep 0.1
    done
    kill -9 "$pid"
}

down() {
    local state=$1
    [ -e "$state/slurm.conf" ] || return 0
    timeout 20 scancel --user=root 2>/dev/null || true
    for node in "${NODES[@]}"; do stop "$state/slurmd-$node.pid" slurmd; done
    stop "$state/slurmctld.pid" slurmctld
    stop "$state/munged.pid" munged
    cmp -s "$state/slurm.conf" /etc/slurm/slurm.conf && rm -f /etc/slurm/slurm.conf /etc/slurm/gres.conf
}

"$1" "$(realpath -m "$2")"
