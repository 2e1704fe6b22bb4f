"""The limits of one core: fused multiply-adds a second, and bytes read and written a second by level of cache."""

from timing import Workload

FOOTPRINTS = {"L1": 16 << 10, "L2": 512 << 10, "L3": 8 << 20, "memory": 256 << 20}  # bytes
GIGA = 1e9
FMA = {f"multiply-adds, {element}": element for element in ("f32", "f64")}
COPY = {f"copying {size >> 10:,} KiB, {level}": size for level, size in FOOTPRINTS.items()}


def limit():
    from limits import fma_limit, stream_limit

    fma = {case: fma_limit(GIGA / 100, element, calls=10) for case, element in FMA.items()}
    copy = {case: stream_limit(GIGA / 100, size, calls=max(10, size // 10_000_000)) for case, size in COPY.items()}
    return {**fma, **copy}


WORKLOAD = Workload(
    title="The limits of one core",
    contenders={"this core": limit},
    work={**dict.fromkeys(FMA, (GIGA / 100, "FLOP")), **dict.fromkeys(COPY, (GIGA / 100, "B"))},
    note="Bytes are counted twice: read and written. An operation is an addition or a multiplication.",
    drawn=False,
)
