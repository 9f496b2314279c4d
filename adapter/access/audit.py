"""Who did what, and whether it was let: a record of each prediction (or a sample), each refusal by the gate, each admin act.

A record goes to the log stream (and so to OTLP) as `event.name` `tandem.audit`, and to a ledger of files (`ledger.py`). It
holds a digest of the input, never the input. A sample of inputs may be kept apart from it, with fields redacted, for
whoever has asked for that on purpose.

A disk that is full or hangs costs records of the files, which are counted, and never a request: records wait in memory,
bounded, while one thread writes.
"""

import asyncio
import hashlib
import logging
import random
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson

from adapter.access.ledger import Ledger
from adapter.exchange import Exchange
from adapter.settings import MIB, Settings
from adapter.telemetry.logs import LogStream, timestamp
from adapter.telemetry.metrics import AUDIT_LOST, AUDIT_RECORDS, AUDIT_SUPPRESSED

WRITE_SECONDS = 0.1
HEAD_SECONDS = 60.0
MAX_WAITING = 20_000
# Refusals recorded in a second; a flood of them must not push everything else out of the files.
REFUSALS_PER_SECOND = 20
# Larger inputs are hashed in a thread: SHA-256 takes a millisecond for so many bytes.
INLINE = MIB
_DENIED = frozenset({401, 403, 429})
_PREDICTIONS = ("/v1", "/v2", "/predict")
_ADMIN = ("/shutdown",)

log = logging.getLogger(__name__)


class Audit:
    """Records to `stream` and, where the settings name a directory, to files; `about` says who records."""

    def __init__(self, settings: Settings, stream: LogStream, about: dict[str, Any]) -> None:
        self._stream = stream
        self._bundle = about.get("bundle")
        self._share = settings.audit_predictions
        self._capture = settings.capture
        self._redacted = frozenset(name.strip().lower() for name in settings.capture_redact.split(",")) - {"", "-"}
        self._capture_size = settings.capture_max_body
        directory = Path(settings.audit_dir)
        size, files = settings.audit_file_size * MIB, settings.audit_files
        self.records = Files(Ledger(directory, "audit", size, files, about)) if settings.audit_dir else None
        self._captures = Files(Ledger(directory, "capture", size, files, about)) if settings.capture > 0 else None
        self._random = random.Random()  # noqa: S311 - a sample, not a secret
        self._second = 0
        self._refusals = 0
        self._suppressed = 0

    async def input(self, exchange: Exchange, body: bytes) -> None:
        """The body of a request was read: take its digest, and keep it if it is sampled for that."""
        if not exchange.route.startswith(_PREDICTIONS) or not self._chosen(exchange):
            return
        if len(body) > INLINE:
            digest = await asyncio.to_thread(hashlib.sha256, body)
        else:
            digest = hashlib.sha256(body)
        exchange.attributes["audit.input.digest"] = f"sha256:{digest.hexdigest()}"
        exchange.attributes["audit.input.bytes"] = len(body)
        if self._captures is not None and self._random.random() < self._capture:
            self._captures.add({"http.request.id": exchange.request_id, "input": self._redact(exchange, body)})

    def record(self, exchange: Exchange, status: int) -> None:
        """The request is answered with `status`: record what is to be recorded."""
        route, denied = exchange.route, status in _DENIED
        if route.startswith(_PREDICTIONS) and exchange.request.method == "POST":
            if not denied and not self._chosen(exchange):
                return
            action = "predict"
        elif route.startswith(_ADMIN):
            action = route.removeprefix("/")
        elif denied:
            action = "access"
        else:
            return
        if denied and not self._within_rate():
            return
        principal = exchange.principal
        given = exchange.attributes
        event = {
            "event.name": "tandem.audit",
            "audit.action": action,
            "audit.decision": "denied" if denied else "allowed" if status < 400 else "failed",
            "audit.subject": principal.subject if principal else None,
            "audit.issuer": principal.issuer if principal else None,
            "tandem.tenant": exchange.tenant or (principal.tenant if principal else "") or None,
            "tandem.bundle": self._bundle,
            "tandem.model": given.get("tandem.model"),
            "http.request.id": exchange.request_id,
            "http.request.method": exchange.request.method[:32],
            "http.route": route,
            "http.response.status_code": status,
            "client.address": exchange.client or exchange.request.remote,
            "audit.input.digest": given.get("audit.input.digest"),
            "audit.input.bytes": given.get("audit.input.bytes"),
        }
        if self._suppressed and denied:
            event["audit.suppressed"] = self._suppressed
            self._suppressed = 0
        self._emit(event)

    async def run(self) -> None:
        """Tell the log stream the files' head, from time to time, for ever."""
        told = 0
        while True:
            await asyncio.sleep(HEAD_SECONDS)
            told = self._tell_head(told)

    async def close(self) -> None:
        """Write what waits, and tell the head for the last time."""
        for files in (self.records, self._captures):
            if files is not None:
                await files.close()
        self._tell_head(0)

    def _emit(self, event: dict[str, Any]) -> None:
        AUDIT_RECORDS.labels(event["audit.action"], event["audit.decision"]).inc()
        attributes = {name: value for name, value in event.items() if value is not None}
        subject = attributes.get("audit.subject", "nobody known")
        body = f"{event['audit.action']} {event['audit.decision']}: {subject}"
        self._stream.write("INFO", body, {**attributes, "tandem.task": "adapter"})
        if self.records is not None:
            self.records.add(attributes)

    def _chosen(self, exchange: Exchange) -> bool:
        """Whether this prediction is in the sample; decided once, by us: a client must not choose."""
        if exchange.audited is None:
            exchange.audited = self._share >= 1 or self._random.random() < self._share
        return exchange.audited

    def _within_rate(self) -> bool:
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._refusals = second, 0
        self._refusals += 1
        if self._refusals <= REFUSALS_PER_SECOND:
            return True
        self._suppressed += 1
        AUDIT_SUPPRESSED.inc()
        return False

    def _tell_head(self, told: int) -> int:
        ledger = self.records.ledger if self.records is not None else None
        if ledger is None or ledger.seq == told:
            return told
        attributes = {"event.name": "tandem.audit.head", "audit.seq": ledger.seq, "audit.hash": ledger.hash}
        log.info("The audit files end at line %d", ledger.seq, extra={"attributes": attributes})
        return ledger.seq

    def _redact(self, exchange: Exchange, body: bytes) -> object:
        """The input without the fields that are not to be kept; of what is no JSON, or too large, only its size."""
        if len(body) > self._capture_size:
            return {"omitted": f"{len(body)} bytes, at most {self._capture_size} are kept"}
        try:
            return redact(orjson.loads(body), self._redacted)
        except (orjson.JSONDecodeError, RecursionError):
            return {"omitted": f"{len(body)} bytes of {exchange.request.content_type[:64]}, which is not JSON"}


def redact(value: object, names: frozenset[str]) -> object:
    """`value` with what stands under these names (in lower case) replaced, at any depth."""
    if isinstance(value, dict):
        return {name: "[redacted]" if name.lower() in names else redact(inner, names) for name, inner in value.items()}
    if isinstance(value, list):
        return [redact(inner, names) for inner in value]
    return value


class Files:
    """A ledger that is written ten times a second, by a thread; what waits is bounded."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self._waiting: list[tuple[str, object]] = []
        self._lost = 0
        self._writing: asyncio.Task[None] | None = None
        self._failed = False
        self._thread = ThreadPoolExecutor(1, "audit")

    def add(self, event: object) -> None:
        """Have the event written soon; beyond what may wait it is lost, and counted."""
        if len(self._waiting) >= MAX_WAITING:
            self._lose(1)
            return
        self._waiting.append((timestamp(time.time_ns()), event))
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_soon())

    async def close(self) -> None:
        """Write what waits, unless the disk hangs."""
        if self._writing is not None and not self._writing.done():
            await asyncio.wait({self._writing}, timeout=2)
        if self._writing is None or self._writing.done():
            await self._write()
            await asyncio.get_running_loop().run_in_executor(self._thread, self.ledger.close)
        self._thread.shutdown(wait=False)

    async def _write_soon(self) -> None:
        while self._waiting:
            await asyncio.sleep(WRITE_SECONDS)
            await self._write()

    async def _write(self) -> None:
        if not self._waiting:
            return
        events, self._waiting = self._waiting, []
        lost, self._lost = self._lost, 0
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self.ledger.append, events, lost)
            self._failed = False
        except OSError as error:
            self._lost += lost
            self._lose(len(events))
            if not self._failed:
                log.error("Audit records cannot be written: %s", error)
            self._failed = True

    def _lose(self, count: int) -> None:
        self._lost += count
        AUDIT_LOST.inc(count)
