"""The step of `digits` on 256 rows, of which `vmap` traces one."""

from workloads.digits import step_by_vmap, workload

WORKLOAD = workload(256, step_by_vmap, times_jax=2.0)
