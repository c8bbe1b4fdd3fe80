"""A real SLURM cluster on this machine, with accounting, for tests: started in seconds, gone afterwards.

    with Cluster(folder) as cluster:
        subprocess.run(["sbatch", …], env=os.environ | cluster.environment)

Everything it writes is in `folder`, /etc/slurm is neither read nor written, and ports are free ones, so that several
may run at once; only the nodes' names are shared (lines in /etc/hosts). To work with one by hand:

    python -m tests.slurm.cluster FOLDER
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.slurm.config import TWO_NODES, Shape, write_configuration
from tests.slurm.keeper import descendants, kill

PROGRAMS = {
    "slurmctld": "slurmctld",
    "slurmd": "slurmd",
    "srun": "slurm-client",
    "slurmdbd": "slurmdbd",
    "munged": "munge",
    "mariadbd": "mariadb-server",
    "mariadb-install-db": "mariadb-server",
}
HOSTS = Path("/etc/hosts")
NODE_MARK = "SIGLIP_REPRO_TEST_NODE"  # in the environment of a node's slurmd, to tell one node's steps from the other's


def missing() -> str | None:
    """A sentence on what this machine lacks to run a cluster, or None."""
    if sys.platform != "linux":
        return "a SLURM cluster needs Linux"
    packages = sorted({package for program, package in PROGRAMS.items() if not find(program)})
    if packages:
        return f"a SLURM cluster needs these packages: apt-get install {' '.join(packages)}"
    if os.geteuid() != 0:
        return "a SLURM cluster is started by root"
    return None


def find(program: str) -> str | None:
    """Where a program is; daemons are in sbin, which is not on everyone's path."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


class Cluster:
    """Nodes of four CPUs each; partitions `low` (the default) and `high`, which preempts it."""

    def __init__(self, folder: Path, shape: Shape = TWO_NODES) -> None:
        self.folder = Path(folder).resolve()
        self.shape = shape
        self.environment = {"SLURM_CONF": str(self.folder / "slurm.conf"), "GLOO_SOCKET_IFNAME": "lo"}
        self.daemons: dict[str, int] = {}
        self._keeper: subprocess.Popen | None = None

    def __enter__(self) -> "Cluster":
        self.start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def start(self) -> None:
        """Start all daemons and return when all nodes are idle. Should that fail, nothing is left running."""
        if sentence := missing():
            raise RuntimeError(sentence)
        for name in ("log", "munge", "mariadb", "state", *(f"spool-{node}" for node in self.shape.nodes)):
            (self.folder / name).mkdir(parents=True, exist_ok=True, mode=0o755)
        name_the_nodes(self.shape.nodes)
        ports = write_configuration(self.folder, self.shape)
        self._keeper = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("keeper.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | self.environment,
            start_new_session=True,  # Ctrl-C in a terminal is ours alone
        )
        try:
            self._start_munge()
            self._start_accounting(ports)
            self._daemon("slurmctld", "slurmctld", "-D")
            for node in self.shape.nodes:
                self.start_slurmd(node)
            idle = dict.fromkeys(self.shape.nodes, "idle")
            self.wait_for(lambda: self.node_states() == idle, "all nodes being idle")
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End all daemons and whatever jobs still run."""
        if self._keeper:
            self._keeper.stdin.close()
            self._keeper.wait(timeout=60)
            self._keeper.stdout.close()
            self._keeper = None
            self.daemons.clear()

    def command(self, *argv: str, timeout: float = 60, env: Mapping[str, str] | None = None) -> str:
        """Standard output of a client command (sbatch, squeue, …); RuntimeError with what it said if it fails."""
        environment = (env or os.environ) | self.environment
        answer = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=timeout)
        if answer.returncode:
            raise RuntimeError(f"{' '.join(argv)} ended with {answer.returncode}\n{answer.stdout}{answer.stderr}")
        return answer.stdout

    def node_states(self) -> dict[str, str]:
        """{"n1": "idle", "n2": "down*"}: as sinfo says it, * where the node does not answer."""
        lines = self.command("sinfo", "--noheader", "--Node", "--partition=low", "--format=%N %T").splitlines()
        return dict(line.split() for line in lines)

    def stop_slurmd(self, node: str) -> None:
        """Kill a node's slurmd hard, which SLURM takes for a lost node; what runs on the node goes on running."""
        os.kill(self.daemons.pop(f"slurmd-{node}"), signal.SIGKILL)

    def lose_node(self, node: str) -> None:
        """As if the node's power failed: its slurmd and all that runs on it are killed at one moment.

        Connections to it are closed all the same, which a node without power does not do.
        """
        self.stop_slurmd(node)
        kill(descendants(*steps) | set(steps) if (steps := self._steps_of(node)) else ())

    def start_slurmd(self, node: str) -> None:
        """Start a node's slurmd; a node that was down comes back by itself (ReturnToService=2)."""
        self._daemon(f"slurmd-{node}", "slurmd", "-D", "-N", node, **{NODE_MARK: f"{node} {self.folder}"})

    def wait_for(self, condition: Callable[[], object], what: str, seconds: float = 30) -> None:
        """Return when condition() is true; TimeoutError, with the ends of all logs, when it is not in time."""
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"waited {seconds:g} s for {what}\n{self.log_ends()}")
            time.sleep(0.1)

    def log_ends(self, lines: int = 8) -> str:
        ends = []
        for log in sorted((self.folder / "log").iterdir()):
            ends += [f"--- {log}", *log.read_text(errors="replace").splitlines()[-lines:]]
        return "\n".join(ends)

    def _start_munge(self) -> None:
        key = self.folder / "munge/key"
        key.touch(mode=0o600)  # munged refuses a key that others can read
        key.write_bytes(os.urandom(128))
        paths = {name: self.folder / "munge" / name for name in ("key-file", "pid-file", "log-file", "seed-file")}
        options = [f"--{name}={path}" for name, path in (paths | {"key-file": key}).items()]
        # --force: temporary folders that only root can enter are no reason to stop
        self._daemon("munged", "munged", "--foreground", "--force", f"--socket={self.folder}/munge/socket", *options)
        self.wait_for((self.folder / "munge/socket").exists, "munged")

    def _start_accounting(self, ports: dict[str, int]) -> None:
        database = [
            "--no-defaults",
            "--user=root",
            f"--datadir={self.folder}/mariadb",
            "--skip-name-resolve",
            "--innodb-log-file-size=4M",
        ]
        install = [find("mariadb-install-db"), *database, "--skip-test-db", "--auth-root-authentication-method=normal"]
        subprocess.run(install, check=True, capture_output=True)
        self._daemon(
            "mariadbd",
            "mariadbd",
            *database,
            f"--socket={self.folder}/mariadb.socket",
            f"--pid-file={self.folder}/mariadb.pid",
            f"--port={ports['mariadb_port']}",
            "--bind-address=127.0.0.1",
            "--innodb-flush-log-at-trx-commit=0",  # nobody needs these accounts after a crash
        )
        self.wait_for(lambda: answers(ports["mariadb_port"]), "mariadbd")
        self._daemon("slurmdbd", "slurmdbd", "-D")
        self.wait_for(lambda: answers(ports["slurmdbd_port"]), "slurmdbd")
        for what in ("cluster test", "account lab", "user root account=lab"):
            self.command("sacctmgr", "--immediate", "add", *what.split())

    def _steps_of(self, node: str) -> list[int]:
        """Process ids of a node's slurmstepds, which inherit their slurmd's environment."""
        mark = f"{NODE_MARK}={node} {self.folder}".encode()
        return [pid for pid in descendants(self._keeper.pid) if mark in environment_of(pid)]

    def _daemon(self, name: str, program: str, *arguments: str, **environment: str) -> None:
        argv = [find(program), *arguments]
        line = {"argv": argv, "log": f"{self.folder}/log/{name}.out", "environment": environment}
        print(json.dumps(line), file=self._keeper.stdin, flush=True)
        self.daemons[name] = int(self._keeper.stdout.readline())


def name_the_nodes(nodes: Sequence[str]) -> None:
    """Make the nodes names of this machine: torch.distributed resolves a job's first node by name."""
    for node in nodes:
        try:
            socket.gethostbyname(node)
        except socket.gaierror:
            with HOSTS.open("a") as file:
                file.write(f"127.0.0.1 {node}\n")


def environment_of(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except (FileNotFoundError, ProcessLookupError):  # it has ended meanwhile
        return []


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except ConnectionRefusedError:
        return False
    return True


def main() -> None:
    (folder,) = sys.argv[1:]
    with Cluster(Path(folder)) as cluster:
        for name, value in cluster.environment.items():
            print(f"export {name}={value}", flush=True)
        try:
            signal.pause()
        except KeyboardInterrupt:
            print("stopping", file=sys.stderr)


if __name__ == "__main__":
    main()
