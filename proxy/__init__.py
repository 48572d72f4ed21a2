"""The proxy: data plane (workers) and control plane (one control per host)."""

__version__ = "0.1.0"
