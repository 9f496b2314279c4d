"""Changes of a bundle's source directory, and models loaded anew in a running TensorFlow Serving.

A version that is served is never looked at again, so its models are taken away and given back, by TensorFlow Serving's own
call for that (ModelService.HandleReloadConfigRequest).
"""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from google.protobuf import text_format
from watchfiles import DefaultFilter, awatch

from adapter.pb import serving_pb2

RELOAD_TIMEOUT = 60.0
POLL = 0.02
_NOT_YET = "did not become available"
_SERVICE = "/tensorflow.serving.ModelService/"
# What packing and running write themselves.
_OWN = {"vendor", "vendor.lock", ".vendor-made-from", ".vendor.part", ".tandem"}


class ReloadFailed(Exception):
    """TensorFlow Serving's word on why."""


async def changes(source: Path) -> AsyncIterator[frozenset[str]]:
    """The files that were saved together, relative to `source`, as soon as no more come for a moment."""
    top = source.resolve()  # noqa: ASYNC240 - once, before anything waits
    async for found in awatch(top, watch_filter=DefaultFilter(), step=50, debounce=500):
        names = frozenset(Path(path).relative_to(top).as_posix() for _, path in found)
        if saved := frozenset(name for name in names if name.partition("/")[0] not in _OWN):
            yield saved


def touches_models(changed: frozenset[str]) -> bool:
    """Whether what TensorFlow Serving has loaded is no longer what the source says."""
    return any(name == "bundle.toml" or name.startswith("models/") for name in changed)


async def reload_models(target: str, config: str) -> None:
    """Have the server at `target` load the models of `config` (its text format) from their files, whatever it has now.

    Raises:
        ReloadFailed: it does not.
    """
    wanted = text_format.Parse(config, serving_pb2.ModelServerConfig())
    none = serving_pb2.ModelServerConfig(model_config_list=serving_pb2.ModelConfigList())
    try:
        async with grpc.aio.insecure_channel(target) as channel:
            await _configure(channel, none)
            try:
                await _configure(channel, wanted)
            except grpc.aio.AioRpcError as error:
                # It may take the version's last state, which is still END, for a failed load; the status tells.
                if _NOT_YET not in (error.details() or ""):
                    raise
            for model in wanted.model_config_list.config:
                await _loaded(channel, model.name)
    except grpc.aio.AioRpcError as error:
        raise ReloadFailed(error.details() or error.code().name) from None


async def _configure(channel: grpc.aio.Channel, config: serving_pb2.ModelServerConfig) -> None:
    call = channel.unary_unary(
        f"{_SERVICE}HandleReloadConfigRequest",
        request_serializer=serving_pb2.ReloadConfigRequest.SerializeToString,
        response_deserializer=serving_pb2.ReloadConfigResponse.FromString,
    )
    await call(serving_pb2.ReloadConfigRequest(config=config), timeout=RELOAD_TIMEOUT)


async def _loaded(channel: grpc.aio.Channel, name: str) -> None:
    """Until it is."""
    call = channel.unary_unary(
        f"{_SERVICE}GetModelStatus",
        request_serializer=serving_pb2.GetModelStatusRequest.SerializeToString,
        response_deserializer=serving_pb2.GetModelStatusResponse.FromString,
    )
    request = serving_pb2.GetModelStatusRequest(model_spec=serving_pb2.ModelSpec(name=name))
    end = time.monotonic() + RELOAD_TIMEOUT
    while time.monotonic() < end:
        status = await call(request, timeout=RELOAD_TIMEOUT)
        for version in status.model_version_status:
            if version.state == serving_pb2.ModelVersionStatus.AVAILABLE:
                return
            if version.status.error_code:
                raise ReloadFailed(f"{name}: {version.status.error_message}")
        await asyncio.sleep(POLL)
    raise ReloadFailed(f"{name} is not loaded after {RELOAD_TIMEOUT:g} s")
