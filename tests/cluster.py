"""A Slurm cluster of this one machine, for the tests: Debian's slurm-wlm and munge, started by hand in a folder.

Two GPUs are made up: device nodes that nothing answers, which Slurm hands out as CUDA_VISIBLE_DEVICES.
"""

import os
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import time
from pathlib import Path

DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "squeue", "scontrol")
# Some programs of Slurm lie outside the path of users.
PATH = os.environ["PATH"] + ":/usr/sbin:/sbin"
GPU_MAJOR = 195
PATIENCE = 900


def lacking() -> str | None:
    """Why no cluster can be started here; None when one can."""
    missing = [name for name in DAEMONS if shutil.which(name, path=PATH) is None]
    if missing:
        return f"Slurm is not installed ({', '.join(missing)}): apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "a Slurm cluster is started by root alone"
    with tempfile.TemporaryDirectory() as folder:
        try:
            _make_gpu(Path(folder) / "gpu0", 0)
        except PermissionError:
            return "device nodes cannot be made here, so there is no GPU to hand out"
    return None


def _make_gpu(path: Path, number: int) -> None:
    os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(GPU_MAJOR, number))


class Cluster:
    """Daemons and configuration in `folder`; use as a context manager."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = {**os.environ, "SLURM_CONF": str(folder / "slurm.conf"), "PATH": PATH}
        self.daemons: dict[str, subprocess.Popen] = {}

    def __enter__(self) -> "Cluster":
        self._write()
        try:
            self._start_munge()
            self.start("slurmctld")
            self.start("slurmd")
            self.wait(lambda: "idle" in self.run("sinfo", "--noheader", "--format=%t", check=False).stdout,
                      "the node to be idle")
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error) -> None:
        if "slurmctld" in self.daemons:
            self.run("scancel", "--user=root", check=False)
        for name in ("slurmctld", "slurmd", "munged"):
            if name in self.daemons:
                self.kill(name, signal.SIGTERM)

    def _write(self) -> None:
        ports = [_free_port() for _ in range(2)]
        host = socket.gethostname().partition(".")[0]
        cpus = len(os.sched_getaffinity(0))
        for name in ("state", "spool", "gpus"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        gpus = []
        for number in range(2):
            node = self.folder / "gpus" / f"gpu{number}"
            _make_gpu(node, number)
            gpus.append(node)
        (self.folder / "slurm.conf").write_text(f"""
ClusterName=tests
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={self.folder}/munge.socket
CredType=cred/munge
StateSaveLocation={self.folder}/state
SlurmdSpoolDir={self.folder}/spool
SlurmctldPidFile={self.folder}/slurmctld.pid
SlurmdPidFile={self.folder}/slurmd.pid
SlurmctldLogFile={self.folder}/slurmctld.log
SlurmdLogFile={self.folder}/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=2,batch_sched_delay=1,bf_interval=2
ReturnToService=2
GresTypes=gpu
KillWait=120
MinJobAge=2
MessageTimeout=30
NodeName={host} NodeAddr=127.0.0.1 CPUs={cpus} RealMemory=1000 Gres=gpu:2 State=UNKNOWN
PartitionName=main Nodes={host} Default=YES MaxTime=INFINITE State=UP
""")
        (self.folder / "gres.conf").write_text("".join(f"NodeName={host} Name=gpu File={node}\n" for node in gpus))
        (self.folder / "cgroup.conf").write_text("")

    def _start_munge(self) -> None:
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o400)
        arguments = [f"--{name}={self.folder}/munge.{suffix}" for name, suffix in
                     (("key-file", "key"), ("socket", "socket"), ("pid-file", "pid"), ("log-file", "log"),
                      ("seed-file", "seed"))]
        # --force: the folders above belong to whoever runs the tests.
        self._spawn("munged", "--foreground", "--force", *arguments)
        self.wait((self.folder / "munge.socket").exists, "munge's socket")

    def start(self, name: str) -> None:
        """Starts slurmctld or slurmd."""
        self._spawn(name, "-D", "-f", str(self.folder / "slurm.conf"))
        if name == "slurmctld":
            self.wait(lambda: self.run("scontrol", "ping", check=False).returncode == 0, "slurmctld to answer")

    def _spawn(self, name: str, *arguments: str) -> None:
        with open(self.folder / f"{name}.out", "ab") as output:
            self.daemons[name] = subprocess.Popen([shutil.which(name, path=PATH), *arguments], env=self.environment,
                                                  stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                                                  start_new_session=True)

    def kill(self, name: str, number: int) -> None:
        daemon = self.daemons.pop(name)
        daemon.send_signal(number)
        try:
            daemon.wait(30)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess:
        """Calls a program of Slurm."""
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=60)
        assert not check or done.returncode == 0, (command, done.stdout, done.stderr)
        return done

    def queue(self) -> list[list[str]]:
        """Number, state and reason of each job."""
        listed = self.run("squeue", "--noheader", "--states=all", "--format=%i|%T|%r|%k").stdout
        return [line.split("|") for line in listed.splitlines()]

    def wait(self, condition, what: str, seconds: float = PATIENCE) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, f"waited in vain for {what}: {self.state()}"
            time.sleep(0.2)

    def wait_until_empty(self) -> None:
        self.wait(lambda: not self.run("squeue", "--noheader").stdout.strip(), "the queue to empty")

    def wait_until_saved(self) -> None:
        """Waits until slurmctld has written down what its jobs are doing: it does so some seconds after a change, and
        one that is killed before starts such a job a second time, at which Slurm takes the node out of service."""
        started = self.run("squeue", "--noheader", "--states=RUNNING", "--format=%S").stdout.split()
        changed = max(time.mktime(time.strptime(start, "%Y-%m-%dT%H:%M:%S")) for start in started)
        # What it registers of a job that has begun makes it save again, so that one of these is after the beginning.
        self.wait(lambda: (self.folder / "state" / "job_state").stat().st_mtime > changed + 1, "the jobs to be saved")

    def state(self) -> str:
        """What there is to see when something has gone wrong."""
        logs = [f"{path.name}: " + " / ".join(path.read_text(errors="replace").splitlines()[-5:])
                for path in sorted(self.folder.glob("*.log")) + sorted(self.folder.glob("*.out"))]
        return "\n".join([self.run("squeue", "--states=all", check=False).stdout, *logs])


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
