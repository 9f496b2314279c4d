"""`python -m adapter`: read the settings and the bundle, then serve. Exit status 2: nothing was started, stderr says why.

Status 1 at once: this allocation was told to end for good (`group/ended.py`), and a restart does not bring it back.
"""

import gc
import os
import sys


def main() -> int:
    """Run the adapter; returns its exit status."""
    from adapter.group import early, ended

    early.note()
    if (reason := ended.reason()) is not None:
        print(f"adapter: this allocation was ended for good: {reason}", file=sys.stderr)
        return 1
    from adapter import memory, settings
    from adapter.access.access import Access
    from adapter.app import load_bundle, serve
    from adapter.bundle.manifest import BundleError
    from adapter.telemetry import logs, metrics, resource

    memory.configure()
    try:
        config = settings.load(os.environ)
        bundle = load_bundle(config)
        access = Access(config, frozenset(model.name for model in bundle.models) if bundle else frozenset())
    except (settings.SettingsError, BundleError) as error:
        for line in str(error).splitlines():
            print(f"adapter: {line}", file=sys.stderr)
        return 2
    import uvloop

    identity = resource.resource(os.environ, (bundle.name, bundle.version) if bundle else None)
    metrics.identify(identity)
    stream = logs.configure(config.log_level, identity)
    # What was imported stays: the collector need not look at it again, and not look at all after each dozen requests,
    # which make no cycles.
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    if early.noted():
        return 0
    try:
        return uvloop.run(serve(config, bundle, stream, access))
    finally:
        stream.stop()


if __name__ == "__main__":
    sys.exit(main())
