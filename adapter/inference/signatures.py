"""What a servable takes and gives: TensorFlow Serving's metadata, asked once for each servable and kept.

"The newest version" and labels move. Every answer names the version that gave it, so an entry learns from the answers
(`seen`) that its version is gone, and a call that was refused lets go of an entry that is old enough (`doubt`).
"""

import asyncio
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from adapter.errors import Refused
from adapter.inference.calls import METADATA, Calls
from adapter.inference.tensor import DTYPES, Signature, TensorSpec, quoted
from adapter.pb import serving_pb2, tensorflow_pb2

DEFAULT_SIGNATURE = "serving_default"
_CAPACITY = 256
_DOUBT_SECONDS = 1.0


class Servable(NamedTuple):
    """A model, and which version of it: a number, a label, or (neither) the newest."""

    model: str
    version: int | None = None
    label: str | None = None

    def spec(self, signature: str = "") -> serving_pb2.ModelSpec:
        """The message that names it."""
        spec = serving_pb2.ModelSpec(name=self.model, signature_name=signature)
        if self.version is not None:
            spec.version.value = self.version
        elif self.label is not None:
            spec.version_label = self.label
        return spec


@dataclass(frozen=True, slots=True, eq=False)
class Endpoint:
    """One signature of one servable: what a prediction is asked of. `spec` is the encoded ModelSpec that names it."""

    servable: Servable
    signature: Signature
    spec: bytes


@dataclass(frozen=True, slots=True)
class _Entry:
    version: int
    endpoints: Mapping[str, Endpoint]
    since: float


class Signatures:
    """The signatures of the servables behind `calls`, cached."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._entries: OrderedDict[Servable, _Entry] = OrderedDict()

    def known(self, servable: Servable, name: str) -> Endpoint | None:
        """The signature if it is cached: the way of almost every request, without an await."""
        entry = self._entries.get(servable)
        return entry.endpoints.get(name or DEFAULT_SIGNATURE) if entry else None

    async def get(self, servable: Servable, name: str, deadline: float) -> Endpoint:
        """The signature called `name` ("" = serving_default).

        Raises:
            Refused: 400 when the servable has no such signature.
            CallFailed: whatever TensorFlow Serving says of the servable.
        """
        endpoint = self.known(servable, name)
        if endpoint is not None:
            return endpoint
        entry = await self._ask(servable, deadline)
        endpoint = entry.endpoints.get(name or DEFAULT_SIGNATURE)
        if endpoint is None:
            names = quoted(known for known in entry.endpoints if not known.startswith("__saved_model_"))[:512]
            raise Refused(
                400,
                f'Serving signature name: "{name or DEFAULT_SIGNATURE}" not found in signature def, which has {names}',
            )
        return endpoint

    def seen(self, servable: Servable, version: int) -> None:
        """An answer came from `version`: an entry of another version is dropped."""
        entry = self._entries.get(servable)
        if entry is not None and entry.version != version:
            del self._entries[servable]

    def doubt(self, servable: Servable) -> None:
        """A call was refused: perhaps the model is another by now. Entries of the last second stay, against floods."""
        entry = self._entries.get(servable)
        if entry is not None and asyncio.get_running_loop().time() - entry.since > _DOUBT_SECONDS:
            del self._entries[servable]

    async def _ask(self, servable: Servable, deadline: float) -> _Entry:
        request = serving_pb2.GetModelMetadataRequest(model_spec=servable.spec(), metadata_field=["signature_def"])
        answer = await self._calls.call(METADATA, request.SerializeToString(), deadline)
        response = serving_pb2.GetModelMetadataResponse.FromString(answer)
        signatures = serving_pb2.SignatureDefMap()
        response.metadata["signature_def"].Unpack(signatures)
        entry = _Entry(
            version=response.model_spec.version.value,
            endpoints={
                name: _endpoint(servable, name, definition) for name, definition in signatures.signature_def.items()
            },
            since=asyncio.get_running_loop().time(),
        )
        self._entries[servable] = entry
        if len(self._entries) > _CAPACITY:
            self._entries.popitem(last=False)
        return entry


def _endpoint(servable: Servable, name: str, definition: tensorflow_pb2.SignatureDef) -> Endpoint:
    signature = Signature(name, definition.method_name, _specs(definition.inputs), _specs(definition.outputs))
    return Endpoint(servable, signature, servable.spec(name).SerializeToString())


def _specs(infos: Mapping[str, tensorflow_pb2.TensorInfo]) -> dict[str, TensorSpec]:
    """Specs in order of name; tensors of dtypes that never leave a graph (resource, variant) have none."""
    specs = {}
    for name in sorted(infos):
        dtype = DTYPES.get(infos[name].dtype)
        if dtype is not None:
            shape = infos[name].tensor_shape
            sizes = None if shape.unknown_rank else tuple(dim.size for dim in shape.dim)
            specs[name] = TensorSpec(name, dtype, sizes)
    return specs
