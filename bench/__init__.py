"""The benchmark harness: real server processes, real disks and sockets, and a check that all servers agree.

`python -m bench --help` lists the experiments. Nothing imports this package; it uses craft as programs do.

`workload` unique commands, the state machine, the load · `member` one server process under test · `processes`
starting, asking and ending them · `machine` what it ran on · `experiment` what an experiment is, its options
and its result · `loading` a load over a window, and the comparison afterwards · `figures` from readings to
figures · `beside` another command in the same session · `throughput`, `latency`, `idle` the experiments
· `multileader`, `multileader_figures`, `namespaces`, `quotas`: servers that share no network, or no core
· `skew`, drawn by `skew_picture`, which starts no process: the simulator's engines with wrong clocks.
"""
