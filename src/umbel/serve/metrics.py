"""`/metrics`: what the server counts, in Prometheus' text form, with vLLM's names where they mean the same."""

from __future__ import annotations

from collections.abc import Iterator

from fastapi import APIRouter
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from umbel.serve.service import Service


class EngineCollector(Collector):
    """The engine's own figures, read when they are asked for."""

    def __init__(self, service: Service):
        self._service = service

    def collect(self) -> Iterator[Metric]:
        """Every figure, as it is now."""
        service, stats, load = self._service, self._service.llm.stats(), self._service.load()
        gauges = (
            ("vllm:num_requests_running", "Answers that are being computed.", load.running),
            ("vllm:num_requests_waiting", "Prompts that wait for their turn.", load.waiting),
            ("vllm:kv_cache_usage_perc", "The share of the KV pool that is taken (1 is all).", load.kv_share),
            ("umbel:healthy", "1 while the engine answers.", float(service.failure is None)),
        )
        counts = (
            ("vllm:prompt_tokens", "Tokens of the prompts that finished.", stats.prompt_tokens),
            ("vllm:generation_tokens", "Tokens of answers.", stats.output_tokens),
            ("vllm:num_preemptions", "Answers that gave up their memory for others.", stats.preemptions),
            (
                "umbel:computed_prompt_tokens",
                "Prompt tokens that were computed, not found.",
                stats.computed_prompt_tokens,
            ),
            ("umbel:steps", "Steps of the model.", stats.steps),
        )
        names, values = ["model_name"], [service.settings.names[0]]
        for name, about, value in gauges:
            gauge = GaugeMetricFamily(name, about, labels=names)
            gauge.add_metric(values, value)
            yield gauge
        for name, about, value in counts:
            counter = CounterMetricFamily(name, about, labels=names)
            counter.add_metric(values, value)
            yield counter


def metrics_router(service: Service) -> APIRouter:
    """The endpoint for figures."""
    router = APIRouter(tags=["server"])
    service.figures.registry.register(EngineCollector(service))

    @router.get("/metrics", summary="Figures for Prometheus")
    async def metrics() -> Response:
        return Response(generate_latest(service.figures.registry), media_type=CONTENT_TYPE_LATEST)

    return router
