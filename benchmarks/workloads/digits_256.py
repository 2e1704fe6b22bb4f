"""The step of `digits` on 256 rows: 22 million operations to trace, some minutes and 12 GB."""

from workloads.digits import workload

WORKLOAD = workload(256, times_jax=2.0)
