"""The files that configure a test cluster: nodes that are this machine several times, everything inside one folder.

What differs from a cluster for people is marked: waits are short, and the nodes claim to have more than they do.
"""

import os
import random
import socket
import stat
from dataclasses import dataclass
from itertools import islice
from pathlib import Path


@dataclass(frozen=True)
class Shape:
    """What tells one test cluster from another.

    requeue_delay: seconds that a requeued job waits before it may start again. gpus_per_node: GPUs that each node
    claims to have. kills_over_memory: whether a step over its memory limit is killed by the accounting plugin.
    send_user_signal: whether a job that is preempted gets the signal of `--signal`, or SIGTERM.
    """

    nodes: tuple[str, ...] = ("n1", "n2")
    max_array_size: int = 10_000
    requeue_delay: int = 5
    gpus_per_node: int = 0
    kills_over_memory: bool = False
    send_user_signal: bool = False


TWO_NODES = Shape()
SMALL = Shape(nodes=("s1", "s2", "s3"), max_array_size=7, gpus_per_node=2, kills_over_memory=True)
"""Three nodes with GPUs, on a cluster that takes arrays of at most seven jobs and kills what is over its memory."""

SLURMDBD = """\
AuthType=auth/munge
AuthInfo=socket={folder}/munge/socket
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort={slurmdbd_port}
SlurmUser=root
LogFile={folder}/log/slurmdbd
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={mariadb_port}
StorageUser=root
StorageLoc=slurm
"""

SLURM = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={slurmctld_port}
SlurmUser=root
SlurmdUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/log/slurmctld
SlurmdLogFile={folder}/log/slurmd-%n
MailProg=/bin/true
AuthType=auth/munge
# A requeued job waits until the credentials of its former life have expired (120 s unless told).
AuthInfo=socket={folder}/munge/socket,cred_expire={requeue_delay}
CredType=cred/munge
MpiDefault=none
SwitchType=switch/none

ProctrackType=proctrack/pgid
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/{gather}
{gather_lines}
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
DefMemPerCPU=1000

AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={slurmdbd_port}
# Not a password: with munge, the socket through which slurmdbd is spoken to.
AccountingStoragePass={folder}/munge/socket
AccountingStorageEnforce=associations,limits,qos

SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=2,sched_min_interval=100000,bf_interval=2,bf_max_job_test=20
PriorityType=priority/basic
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
{signal_line}
JobRequeue=1
MaxArraySize={max_array_size}
MaxJobCount=10000
MinJobAge=300

# Short, so that a test of a time limit or of a lost node takes seconds.
KillWait=10
SlurmctldTimeout=10
SlurmdTimeout=10
InactiveLimit=0
ReturnToService=2

# What a node claims is believed, so that two jobs of two nodes fit on a small machine at once.
SlurmdParameters=config_overrides
{node_lines}
PartitionName=low Nodes={nodes} Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=20 MaxTime=60 DefaultTime=10
PartitionName=high Nodes={nodes} PriorityTier=10 PreemptMode=OFF MaxTime=60 DefaultTime=10
"""

OVER_MEMORY_KILL = """\
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill"""


def write_configuration(folder: Path, shape: Shape) -> dict[str, int]:
    """Write slurm.conf, slurmdbd.conf and gres.conf into `folder`; the ports that were chosen, by name."""
    names = ("mariadb_port", "slurmdbd_port", "slurmctld_port", *shape.nodes)
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    host = socket.gethostname().partition(".")[0]
    values = {
        **ports,
        "folder": folder,
        "host": host,
        "requeue_delay": shape.requeue_delay,
        "max_array_size": shape.max_array_size,
        "signal_line": "SlurmctldParameters=preempt_send_user_signal" if shape.send_user_signal else "",
        "gather": "linux" if shape.kills_over_memory else "none",
        "gather_lines": OVER_MEMORY_KILL if shape.kills_over_memory else "",
        "nodes": ",".join(shape.nodes),
        "node_lines": "\n".join(node_lines(shape, ports, host)),
    }
    (folder / "slurm.conf").write_text(SLURM.format(**values))
    (folder / "slurmdbd.conf").touch(mode=0o600)  # slurmdbd reads no other
    (folder / "slurmdbd.conf").write_text(SLURMDBD.format(**values))
    devices = [folder / f"gpu{number}" for number in range(shape.gpus_per_node)]
    for device in devices:  # SLURM wants devices, and takes their numbers from their names
        os.mknod(device, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    (folder / "gres.conf").write_text("".join(f"Name=gpu File={device}\n" for device in devices))
    return ports


def node_lines(shape: Shape, ports: dict[str, int], host: str) -> list[str]:
    where = f"NodeHostname={host} NodeAddr=127.0.0.1"
    has = "CPUs=4 RealMemory=64000" + (f" Gres=gpu:{shape.gpus_per_node}" if shape.gpus_per_node else "")
    lines = [f"NodeName={node} {where} Port={ports[node]} {has}" for node in shape.nodes]
    return ["GresTypes=gpu", *lines] if shape.gpus_per_node else lines


def free_ports(count: int) -> list[int]:
    """Ports that are free, below those that the kernel gives to whoever asks for any: other tests run meanwhile."""
    return list(islice(filter(is_free, random.sample(range(10_000, 32_000), 1000)), count))


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
