"""The local model server: stands in for tensorflow_model_server where there is no such binary, over real TensorFlow.

    flags ─▶ server ─▶ core ─▶ source (version directories) ─▶ versions (load, unload) ─▶ servable ─▶ runtime (TensorFlow)
                └─▶ services (gRPC), monitoring (the page)

It answers, logs, polls and dies as the original does, and is held to recordings of it (tests/golden). What it does not
do is in docs/model-server.md. Comments cite TensorFlow Serving 2.19's sources as `S: path below tensorflow_serving/`.
"""

from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """`tandem model-server FLAGS…`; returns only if the server does not start."""
    from deploy.local.model_server.server import run  # here, so that importing the package stays cheap

    return run(argv)
