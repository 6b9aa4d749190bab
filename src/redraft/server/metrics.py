"""The server's metrics, for Prometheus."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
SECONDS_PER_TOKEN = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
STEPS = (1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128)
TOKENS_PER_FORWARD = (0.25, 0.5, 1, 2, 4, 6, 8, 12, 16, 24, 32, 64)


class Metrics:
    """The counters, histograms and gauges of one server, in a registry of their own."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()

        def histogram(name: str, help: str, buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"redraft_{name}", help, buckets=buckets, registry=self._registry)

        self.requests = self.add_counter("http_requests", "HTTP requests by route and status", "route", "status")
        self.rejected = self.add_counter("rejected", "Requests rejected, by reason", "reason")
        self.failed = self.add_counter("failed", "Answers that failed, by the error's code", "code")
        self.disconnected = self.add_counter("disconnected", "Requests whose client disconnected before the end")
        self.prompt_tokens = self.add_counter("prompt_tokens", "Tokens of prompts")
        self.cached_tokens = self.add_counter("cached_prompt_tokens", "Tokens of prompts that were in the cache")
        self.answer_tokens = self.add_counter("generation_tokens", "Tokens of answers")
        self.first_text = histogram(
            "time_to_first_token_seconds", "From submission to the engine to first text", SECONDS
        )
        self.per_token = histogram("time_per_output_token_seconds", "Seconds per answer token", SECONDS_PER_TOKEN)
        self.whole = histogram("request_seconds", "From submission to the engine to the end of an answer", SECONDS)
        self.queued = histogram("queue_seconds", "From submission to the engine to admission", SECONDS)
        self.steps = histogram("denoising_steps_per_canvas", "Denoiser passes per canvas", STEPS)
        self.guided_steps = self.add_counter(
            "guided_steps", "Denoiser passes whose tokens were drawn from a constraint"
        )
        self.constraint_builds = histogram("constraint_build_seconds", "Seconds to build a constraint", SECONDS)
        self.constraint_refusals = self.add_counter(
            "constraint_refusals", "Constraints that were not built, by reason", "reason"
        )
        self.per_forward = histogram(
            "tokens_per_forward", "Answer tokens per denoiser pass, or per pass of a causal answer", TOKENS_PER_FORWARD
        )
        self.answers = self.add_counter("answers", "Answers that ended, by the mode they were written in", "mode")
        self.passes = self.add_counter(
            "passes", "Passes that answers took, by mode: denoiser or causal", "mode", "kind"
        )
        self.kept = histogram("kept_per_round", "Tokens that a verified answer kept per round", TOKENS_PER_FORWARD)

    def add_counter(self, name: str, help: str, *labels: str) -> Counter:
        """Returns a new counter."""
        return Counter(f"redraft_{name}", help, labels, registry=self._registry)

    def watch(self, name: str, help: str, value: Callable[[], float]) -> None:
        """Adds a gauge that is read at each scrape."""
        Gauge(f"redraft_{name}", help, registry=self._registry).set_function(value)

    def exposition(self) -> bytes:
        return generate_latest(self._registry)
