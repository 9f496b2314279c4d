"""How long a killed TensorFlow Serving goes unnoticed: from SIGKILL to the first /health/ready that says so.

    make kills ARGS=50

Real processes: the local model server and the adapter, asked in a closed loop over one connection. Writes
docs/benchmarks/kills.md.
"""

import http.client
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.adapters import Adapter, state
from tests.golden.conftest import DATA
from tests.servers import ModelServer

REPORT = Path(__file__).parents[2] / "docs" / "benchmarks" / "kills.md"


def main(kills: int) -> None:
    """Kill so many times, print and write what was measured."""
    unnoticed = measure(kills)
    unnoticed.sort()
    figures = {
        "p50": unnoticed[len(unnoticed) // 2],
        "p99": unnoticed[min(len(unnoticed) - 1, int(len(unnoticed) * 0.99))],
        "longest": unnoticed[-1],
    }
    rows = "\n".join(f"| {name} | {seconds * 1e3:.1f} ms |" for name, seconds in figures.items())
    title = "# A killed TensorFlow Serving, until `/health/ready` says so"
    text = f"{title}\n\n{kills} kills (`make kills`).\n\n| | |\n|---|---|\n{rows}\n"
    REPORT.write_text(text)
    print(text)


def measure(kills: int) -> list[float]:
    """Seconds from each kill to the first answer that is not 200."""
    unnoticed = []
    with tempfile.TemporaryDirectory(prefix="tandem-") as directory:
        bundle = Path(directory)
        model = bundle / "models" / "half_plus_two"
        model.mkdir(parents=True)
        (model / "1").symlink_to(DATA / "models" / "half_plus_two" / "1")
        (bundle / "bundle.toml").write_text(
            'name = "halves"\nversion = "1.0.0"\n[[models]]\nname = "half_plus_two"\nversion = 1\n'
        )
        flags = ["--model_name=half_plus_two", f"--model_base_path={model}"]
        with ModelServer(*flags) as server, Adapter(tfs_grpc=server.target, bundle=bundle) as adapter:
            adapter.ready()
            for number in range(kills):
                client = adapter.connection()
                assert status(client) == 200
                seen = len(adapter.records)
                began = time.perf_counter()
                server.process.send_signal(signal.SIGKILL)
                while status(client) == 200:
                    pass
                unnoticed.append(time.perf_counter() - began)
                client.close()
                print(f"{number + 1}: {unnoticed[-1] * 1e3:.1f} ms", file=sys.stderr, flush=True)
                server.wait()
                server.start()
                adapter.wait_for(state("ready"), after=seen)
    return unnoticed


def status(client: http.client.HTTPConnection) -> int:
    """Of /health/ready."""
    client.request("GET", "/health/ready")
    answer = client.getresponse()
    answer.read()
    return answer.status


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
