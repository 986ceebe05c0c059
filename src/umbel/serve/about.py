"""What the server says of itself: whether it is ready, its version, and the models that it answers as."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse

from umbel.serve.errors import ApiError
from umbel.serve.service import Service


def about_router(service: Service) -> APIRouter:
    """The endpoints about the server itself."""
    router = APIRouter(tags=["server"])

    @router.get("/health", summary="200 when requests are answered, 503 when the engine has failed")
    @router.get("/ping", include_in_schema=False)
    async def health() -> JSONResponse:
        fine = service.failure is None
        return JSONResponse({"status": "ok" if fine else "failed"}, 200 if fine else 503)

    @router.get("/version", summary="The version of Umbel")
    async def told_version() -> dict[str, str]:
        return {"version": version("umbel")}

    @router.get("/v1/models", summary="The names of the model and of its adapters")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model(service, name) for name in _names(service)]}

    @router.get("/v1/models/{name:path}", summary="One of these models")
    async def model(name: str, request: Request) -> dict[str, Any]:
        if name not in _names(service):
            raise ApiError(
                404, "model_not_found", "no model of this name is loaded; GET /v1/models lists them", "model"
            )
        return _model(service, name)

    return router


def _names(service: Service) -> list[str]:
    return [*service.settings.names, *service.options.loras]


def _model(service: Service, name: str) -> dict[str, Any]:
    spec, names = service.llm.spec, service.settings.names
    return {
        "id": name,
        "object": "model",
        "created": service.began,
        "owned_by": "umbel",
        "root": service.settings.config.model,
        "parent": names[0] if name not in names else None,
        "max_model_len": spec.max_positions,
    }
