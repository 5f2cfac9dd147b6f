"""A real Slurm of one node on loopback: started by hand, asked for records, torn down by pid."""

import contextlib
import ctypes
import fcntl
import os
import re
import secrets
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple
from unittest import mock

# The job step that the executor starts reads no other place.
CONF = Path("/etc/slurm/slurm.conf")
PROGRAMS = ["munged", "slurmctld", "slurmd", "sbatch", "squeue", "srun", "scancel", "sinfo"]
PREFIX = "offramp-slurm-"
LIBC = ctypes.CDLL(None)
CPUS = 2
# What a small node has, whatever this machine has. The time between queries and the age at which
# a finished job is forgotten are chosen so that tests are quick and see every job.
SETTINGS = """\
ClusterName=offramp
SlurmctldHost=localhost
SlurmUser=root
AuthInfo=socket={folder}/munge.socket
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
MailProg=/bin/true
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
SchedulerParameters=batch_sched_delay=0,sched_interval=5,bf_interval=5
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=5
JobAcctGatherParams=OverMemoryKill
JobCompType=jobcomp/filetxt
JobCompLoc={folder}/jobcomp.txt
ReturnToService=2
JobRequeue=0
EnforcePartLimits=ALL
MinJobAge=3600
KillWait=5
SlurmdParameters=config_overrides
GresTypes=gpu
NodeName=localhost NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=8000 Gres=gpu:1
PartitionName=my_partition Nodes=localhost MaxTime=INFINITE State=UP
"""


# A GPU that Slurm can give to a job, though nothing is behind it.
GPU = "NodeName=localhost Name=gpu File=/dev/null"


class Record(NamedTuple):
    """What Slurm keeps of a job: ``said`` is its line in jobcomp, ``comment`` names the rule."""

    id: str
    state: str
    comment: str
    exclusive: bool
    said: dict[str, str]


class Slurm:
    """Its commands and its records."""

    def __init__(self, folder: Path):
        self.folder = folder

    def ask(self, *words: str) -> str:
        """The answer of one of Slurm's own commands."""
        return subprocess.check_output(words, text=True, timeout=30)

    def queue(self, run: str) -> list[list[str]]:
        """Id, state, comment and OverSubscribe of all jobs of a run, also of those that ended."""
        told = self.ask(
            "squeue", "--states=all", f"--name={run}", "--noheader", "-o", "%i|%T|%k|%h"
        )
        return [line.split("|") for line in told.splitlines()]

    def records(self, run: str) -> list[Record]:
        """The ended jobs of a run, in the order in which they ended."""
        lines = (self.folder / "jobcomp.txt").read_text().splitlines()
        said = [dict(re.findall(r"(\w+)=(\S*)", line)) for line in lines]
        known = {id_: (comment, shared) for id_, _, comment, shared in self.queue(run)}
        ended = []
        for line in said:
            if line["Name"] == run:
                comment, shared = known[line["JobId"]]
                ended.append(Record(line["JobId"], line["JobState"], comment, shared == "NO", line))
        return ended

    def running(self, run: str, comment: str) -> str | None:
        """The id of a running job of a run whose comment starts so."""
        for id_, state, said, _ in self.queue(run):
            if state == "RUNNING" and said.startswith(comment):
                return id_
        return None


def refuse(problem: str) -> None:
    raise AssertionError(f"test-slurm: {problem}")


def check_installed() -> None:
    missing = [name for name in PROGRAMS if shutil.which(name, path=search_path()) is None]
    if missing:
        refuse(
            f"no {', '.join(missing)} here. On Debian, as root: apt-get install -y "
            "--no-install-recommends slurmctld slurmd slurm-client munge"
        )
    if os.geteuid() != 0:
        refuse(f"needs root, since Slurm reads its configuration from {CONF}")


def search_path() -> str:
    return f"{os.environ['PATH']}:/usr/sbin:/sbin"


def in_use(folder: Path) -> bool:
    """Whether a test run that lives holds a folder of ours."""
    if not (folder / "lock").exists():
        return False
    with (folder / "lock").open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def take_place(conf: Path) -> None:
    """Link our configuration to where Slurm looks for it. Another's is never touched, a link that a
    killed test run has left is."""
    left = CONF.readlink().parent if CONF.is_symlink() else None
    if left and left.name.startswith(PREFIX):
        if in_use(left):
            refuse(f"{CONF} is in use by another run of these tests; wait for it")
        CONF.unlink()
        shutil.rmtree(left, ignore_errors=True)
    if CONF.is_symlink() or CONF.exists():
        refuse(f"{CONF} exists, so that this machine has a Slurm of its own; it is left untouched")
    CONF.parent.mkdir(parents=True, exist_ok=True)
    CONF.symlink_to(conf)


def until(true: Callable[[], object], seconds: float, what: str):
    """Wait for something; its value."""
    deadline = time.monotonic() + seconds
    while not (value := true()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        time.sleep(0.2)
    return value


def end_with_us() -> None:
    """A child that calls this first ends when the tests are killed."""
    LIBC.prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def start(folder: Path, name: str, *arguments: str) -> subprocess.Popen:
    """A daemon in the foreground of its own session."""
    with (folder / f"{name}.out").open("w") as out:
        return subprocess.Popen(
            [shutil.which(name, path=search_path()) or name, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=end_with_us,
        )


def stop(daemon: subprocess.Popen) -> None:
    daemon.terminate()
    try:
        daemon.wait(5)
    except subprocess.TimeoutExpired:
        daemon.kill()
        daemon.wait(5)


@contextlib.contextmanager
def slurm() -> Iterator[Slurm]:
    """A Slurm that takes jobs, for as long as the block lasts."""
    check_installed()
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(shutil.rmtree, folder, ignore_errors=True)
        lock = cleanup.enter_context((folder / "lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        folder.chmod(0o755)  # munge wants everybody to reach its socket
        (folder / "jobcomp.txt").touch()
        for name in ("state", "spool"):
            (folder / name).mkdir()
        (folder / "munge.key").write_bytes(secrets.token_bytes(1024))
        (folder / "munge.key").chmod(0o600)
        conf = folder / "slurm.conf"
        conf.write_text(SETTINGS.format(folder=folder, cpus=CPUS))
        (folder / "gres.conf").write_text(f"{GPU}\n")
        take_place(conf)
        cleanup.callback(CONF.unlink)
        # Whatever Slurm the user's own variables name, it is not the one that we command.
        cleanup.enter_context(mock.patch.dict(os.environ, SLURM_CONF=str(conf)))
        munge = [
            f"--{name}={folder}/munge.{name.split('-')[0]}"
            for name in ("key-file", "socket", "pid-file", "log-file", "seed-file")
        ]
        daemons = {}
        for name, *arguments in (
            ["munged", "--foreground", *munge],
            ["slurmctld", "-D", "-c", "-f", str(conf)],
            ["slurmd", "-D", "-c", "-N", "localhost", "-f", str(conf)],
        ):
            daemons[name] = start(folder, name, *arguments)
            cleanup.callback(stop, daemons[name])
        cleanup.callback(cancel_all)
        until(lambda: ready(folder, daemons), 30, "the node is idle")
        yield Slurm(folder)


def ready(folder: Path, daemons: dict[str, subprocess.Popen]) -> bool:
    for name, daemon in daemons.items():
        if daemon.poll() is not None:
            logs = [folder / f"{name}.{kind}" for kind in ("out", "log")]
            refuse(f"{name} ended: {' '.join(log.read_text() for log in logs if log.exists())}")
    told = subprocess.run(["sinfo", "-h", "-o", "%T"], capture_output=True, text=True)
    return told.stdout.strip() == "idle"


def cancel_all() -> None:
    """End what still runs, and wait for it, so that nothing outlives its daemon."""
    subprocess.run(["scancel", "--user=root"], check=False)
    left = ["squeue", "--noheader", "--states=running,completing,pending"]
    until(lambda: not subprocess.run(left, capture_output=True).stdout, 20, "all jobs have ended")
