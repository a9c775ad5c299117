"""A real SLURM of one node on loopback, without systemd, cgroups or a database.

Debian packages: slurmctld slurmd slurm-client munge. Needs root. SLURM reads its configuration from /etc/slurm, even
inside a job whose environment Snakemake's plugin has cleaned; links are put there, never over a real configuration.
The two GPUs are harmless device files: SLURM counts them and sets CUDA_VISIBLE_DEVICES.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "squeue", "munged")
ETC = Path("/etc/slurm")
FILES = ("slurm.conf", "gres.conf")
NODE = ("slurmd", "-D", "-N", "localhost")


def reason_not_to() -> str | None:
    """Why such a SLURM cannot be started here; None where it can."""
    if os.geteuid() != 0:
        return "needs root"
    if missing := [name for name in PROGRAMS if shutil.which(name) is None]:
        return f"needs the SLURM packages ({', '.join(missing)} missing)"
    if any((ETC / name).exists() and not (ETC / name).is_symlink() for name in FILES):
        return "/etc/slurm holds a real cluster's configuration"
    return None


class Cluster:
    """The three daemons, and SLURM's own record of the jobs that ended."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.record = folder / "jobs.txt"
        folder.chmod(0o755)
        for name in ("munge", "state", "spool", "etc"):
            (folder / name).mkdir(mode=0o700 if name == "munge" else 0o755)
        self._configure(*_free_ports(2))
        self._daemons: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        ETC.mkdir(exist_ok=True)
        for name in FILES:
            (ETC / name).unlink(missing_ok=True)
            (ETC / name).symlink_to(self.folder / "etc" / name)
        munge = self.folder / "munge"
        (munge / "key").write_bytes(secrets.token_bytes(128))
        (munge / "key").chmod(0o400)
        files = {"key-file": "key", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        options = [f"--{option}={munge / name}" for option, name in files.items()]
        self._run("munged", "--foreground", "--force", f"--socket={self.folder / 'munge.socket'}", *options)
        _until(lambda: (self.folder / "munge.socket").exists(), "munged did not start")
        self._run("slurmctld", "-D")
        self._run(*NODE)
        _until(lambda: "idle" in _output("sinfo", "--noheader", "--format=%t"), "the node did not become idle")

    def stop(self) -> None:
        for daemon in reversed(self._daemons):
            daemon.send_signal(signal.SIGTERM)
        for daemon in reversed(self._daemons):
            try:
                daemon.wait(timeout=10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        for name in FILES:
            if (ETC / name).is_symlink():
                (ETC / name).unlink()

    def running(self) -> list[str]:
        """The numbers of the jobs that run now."""
        return _output("squeue", "--noheader", "--states=RUNNING", "--format=%i").split()

    def waiting(self) -> str:
        """The number of the one job that waits, as soon as there is one."""
        _until(lambda: bool(_output("squeue", "--noheader", "--states=PENDING")), "no job came", 60)
        (job,) = _output("squeue", "--noheader", "--states=PENDING", "--format=%i").split()
        return job

    def states(self, folder: Path) -> list[str]:
        """How the jobs that worked in ``folder`` ended, in order."""
        return [job["JobState"] for job in self.jobs() if job["WorkDir"] == str(folder)]

    def until_empty(self, seconds: float = 60) -> None:
        """Wait until no job waits, runs or is being ended."""
        _until(lambda: not _output("squeue", "--noheader"), "jobs are still in the queue", seconds)

    def lose_node(self) -> None:
        """As by a power cut: the node's daemon and all that its jobs run are killed; SLURM takes the node for lost."""
        node = self._daemons.pop()
        node.kill()
        node.wait()
        for process in _below(process for process, words in _processes() if "slurmstepd" in words):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        subprocess.run(["scontrol", "update", "NodeName=localhost", "State=DOWN", "Reason=lost"], check=True)

    def bring_node_back(self) -> None:
        """The node starts again and takes jobs."""
        self._run(*NODE)
        subprocess.run(["scontrol", "update", "NodeName=localhost", "State=RESUME"], check=True)

    def jobs(self) -> list[dict[str, str]]:
        """One dictionary of SLURM's names (JobState, Name, ...) per ended job."""
        if not self.record.exists():
            return []
        rows = (line.split() for line in self.record.read_text().splitlines())
        return [dict(word.split("=", 1) for word in row if "=" in word) for row in rows]

    def _run(self, *command: str) -> None:
        log = (self.folder / f"{command[0]}.log").open("wb")
        self._daemons.append(subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True))

    def _configure(self, controller: int, node: int) -> None:
        settings = {
            "ClusterName": "test",
            "SlurmctldHost": "localhost(127.0.0.1)",
            "SlurmctldPort": controller,
            "SlurmdPort": node,
            "SlurmUser": "root",
            "SlurmdUser": "root",
            "CommunicationParameters": "NoCtldInAddrAny,NoInAddrAny",  # listen on loopback alone
            "AuthType": "auth/munge",
            "CredType": "cred/munge",
            "AuthInfo": f"socket={self.folder / 'munge.socket'},cred_expire=5",  # also a requeued job's wait
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "JobAcctGatherType": "jobacct_gather/none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_Core_Memory",
            "GresTypes": "gpu",
            "DefMemPerCPU": 300,
            "SchedulerType": "sched/backfill",
            "SchedulerParameters": "batch_sched_delay=0,sched_interval=2,bf_interval=2",
            "ReturnToService": 2,
            "MpiDefault": "none",
            "SwitchType": "switch/none",
            "MinJobAge": 3600,  # squeue must still know the jobs that ended
            "KillWait": 5,
            "AccountingStorageType": "accounting_storage/none",
            "JobCompType": "jobcomp/filetxt",
            "JobCompLoc": self.record,
            "StateSaveLocation": self.folder / "state",
            "SlurmdSpoolDir": self.folder / "spool",
            "SlurmctldPidFile": self.folder / "slurmctld.pid",
            "SlurmdPidFile": self.folder / "slurmd.pid",
        }
        lines = [f"{name}={value}" for name, value in settings.items()]
        lines += [
            f"NodeName=localhost NodeAddr=127.0.0.1 NodeHostname={socket.gethostname().split('.')[0]} "
            "CPUs=2 RealMemory=2000 Gres=gpu:2 State=UNKNOWN",
            "PartitionName=all Nodes=localhost Default=YES MaxTime=INFINITE State=UP",
        ]
        (self.folder / "etc" / "slurm.conf").write_text("\n".join(lines) + "\n")
        devices = [f"NodeName=localhost Name=gpu File={path}\n" for path in ("/dev/null", "/dev/zero")]
        (self.folder / "etc" / "gres.conf").write_text("".join(devices))


def _free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=10).stdout


def _processes() -> Iterator[tuple[int, str]]:
    """Number and command line of every process."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            yield int(folder.name), (folder / "cmdline").read_text().replace("\0", " ")


def _below(processes: Iterable[int]) -> list[int]:
    """The processes and all that they have started, those that started others first."""
    found = list(processes)
    for process in found:  # grows while it is read
        for thread in Path(f"/proc/{process}/task").glob("*/children"):
            with suppress(OSError):
                found += map(int, thread.read_text().split())
    return found


def _until(condition: Callable[[], bool], message: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(message)
        time.sleep(0.1)
