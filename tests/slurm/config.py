"""The files that configure a test cluster: two nodes that are this machine twice, everything inside one folder.

What differs from a cluster for people is marked: waits are short, and the nodes claim to have more than they do.
"""

import random
import socket
from itertools import islice
from pathlib import Path

NODES = ("n1", "n2")

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
JobAcctGatherType=jobacct_gather/none
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
MaxArraySize=10000
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
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1_port} CPUs=4 RealMemory=64000
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2_port} CPUs=4 RealMemory=64000
PartitionName=low Nodes=n1,n2 Default=YES PriorityTier=1 PreemptMode=REQUEUE GraceTime=20 MaxTime=60 DefaultTime=10
PartitionName=high Nodes=n1,n2 PriorityTier=10 PreemptMode=OFF MaxTime=60 DefaultTime=10
"""


def write_configuration(folder: Path, requeue_delay: int, send_user_signal: bool) -> dict[str, int]:
    """Write slurm.conf and slurmdbd.conf into `folder`; the ports that were chosen, by name."""
    names = ("mariadb_port", "slurmdbd_port", "slurmctld_port", "n1_port", "n2_port")
    ports = dict(zip(names, free_ports(len(names)), strict=True))
    values = {
        **ports,
        "folder": folder,
        "host": socket.gethostname().partition(".")[0],
        "requeue_delay": requeue_delay,
        "signal_line": "SlurmctldParameters=preempt_send_user_signal" if send_user_signal else "",
    }
    (folder / "slurm.conf").write_text(SLURM.format(**values))
    (folder / "slurmdbd.conf").touch(mode=0o600)  # slurmdbd reads no other
    (folder / "slurmdbd.conf").write_text(SLURMDBD.format(**values))
    return ports


def free_ports(count: int) -> list[int]:
    """Ports that are free, below those that the kernel gives to whoever asks for any: other tests run meanwhile."""
    return list(islice(filter(is_free, random.sample(range(10_000, 32_000), 1000)), count))


def is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
