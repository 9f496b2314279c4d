"""The floor: `grpc.aio` with ready-made bytes, in a closed loop, each answer compared; no HTTP, no JSON.

    floor.py TARGET REQUEST_FILE ANSWER_FILE CONCURRENCY SECONDS

Prints one line of JSON as the load program does, with the CPU seconds it used itself. Writes ANSWER_FILE if there is none.
"""

import asyncio
import json
import sys
import time
from pathlib import Path

import grpc
import uvloop

PREDICT = "/tensorflow.serving.PredictionService/Predict"


async def main(target: str, request: bytes, answer: Path, concurrency: int, seconds: float) -> None:
    unlimited = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    async with grpc.aio.insecure_channel(target, options=unlimited) as channel:
        call = channel.unary_unary(PREDICT)
        expected = answer.read_bytes() if answer.exists() else await call(request)  # noqa: ASYNC240 - before the run
        answer.write_bytes(expected)  # noqa: ASYNC240
        taken: list[float] = []
        wrong = 0

        async def caller(end: float) -> None:
            nonlocal wrong
            begun = time.perf_counter()
            while begun < end:
                wrong += await call(request) != expected
                now = time.perf_counter()
                taken.append(now - begun)
                begun = now

        cpu, begun = time.process_time(), time.perf_counter()
        await asyncio.gather(*(caller(begun + seconds) for _ in range(concurrency)))
        wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    taken.sort()
    last = len(taken) - 1
    p50, p99, longest = (taken[int(last * q)] for q in (0.5, 0.99, 1))
    print(
        json.dumps(
            {"requests": len(taken), "failures": wrong, "first_failure": "", "seconds": wall, "cpu": cpu,
             "p50": p50, "p99": p99, "max": longest}
        )
    )  # fmt: skip


if __name__ == "__main__":
    _, target, request_file, answer_file, concurrency, seconds = sys.argv
    uvloop.run(main(target, Path(request_file).read_bytes(), Path(answer_file), int(concurrency), float(seconds)))
