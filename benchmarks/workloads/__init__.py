"""One file a workload: ours in plain scalar style, the peers as their manuals would write it, and the goals.

The contenders' functions import what they need themselves, each in a process of its own.
"""
