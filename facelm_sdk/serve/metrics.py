"""What Prometheus reads at ``/metrics``."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, ProcessCollector, generate_latest

from .pool import Pool

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """Counts and times of an app, in a registry of its own: nothing is sent anywhere."""

    def __init__(self, pool: Pool, about: dict[str, str]) -> None:
        registry = self.registry = CollectorRegistry()
        self.requests = Counter(
            "facelm_requests", "Answers to POST /v1/faces, by status.", ["status"], registry=registry
        )
        self.seconds = Histogram(
            "facelm_request_seconds",
            "From the headers to the answer, of requests answered with faces.",
            buckets=SECONDS,
            registry=registry,
        )
        self.work = Histogram(
            "facelm_align_seconds", "In a worker, without waiting for one.", buckets=SECONDS, registry=registry
        )
        self.faces = Counter("facelm_faces", "Faces found.", registry=registry)
        gauges = {
            "facelm_places_taken": ("Requests held now: sent, waiting or running.", lambda: pool.taken),
            "facelm_places": ("Requests held at most; beyond it the answer is 503.", lambda: pool.limits.places),
            "facelm_workers_busy": ("Pictures that are aligned now.", lambda: pool.running),
            "facelm_workers": ("Pictures aligned side by side at most.", lambda: pool.limits.workers),
        }
        for name, (text, value) in gauges.items():
            Gauge(name, text, registry=registry).set_function(value)
        Info("facelm", "What answers.", registry=registry).info(about)
        ProcessCollector(registry=registry)

    def text(self) -> bytes:
        """All of them in Prometheus' text format."""
        return generate_latest(self.registry)
