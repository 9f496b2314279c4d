"""`make bench`: the adapter beside its peers, on one backend, in one interleaved run.

    load (Go) ──HTTP──► a peer: the adapter, FastAPI, KServe ──gRPC, unix socket──► stub (Go), or a real TFS
                        the floor: grpc.aio and nothing else ─────────┘

Every peer gets the same numbers, round by round (A, B, C, A, B, C, …), so that a noisy moment meets all of them, and what
is compared are ratios within a round. Every answer is compared with one whose values were checked. The peers have one core
to themselves, backend and load another, where there are two.

    workloads.py   what is asked, and what must come back      servers/     the peers' own code
    peers.py       who is measured, and how each is started    go/          the backend and the load, built by tools.py
    measure.py     one round of one peer                       life.py      start, idle, small requests behind large ones
    report.py      docs/benchmarks/latest.md                   picture.py   docs/benchmarks/latest.svg
    soak.py        `make soak`: memory from the 10,000th to the 100,000th request

`BENCH_TFS_GRPC=host:port` puts a real TensorFlow Serving in the stub's place; it must serve `half_plus_two` (`x` float of any
shape → `y` = x/2 + 2) and `bytes_len` (`x` string [-1] → `y` float = length/2 + 2). `BENCH_TFS_REST=host:port` adds its own
REST API, and KServe's transformer in front of that, to the peers.
"""
