"""The app: routers over one service, behind the check of keys and the catch of what no handler foresaw."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version

from fastapi import FastAPI

from umbel.serve.about import about_router
from umbel.serve.auth import RequireKey
from umbel.serve.completions import completions_router
from umbel.serve.errors import Contained, install
from umbel.serve.service import Service


def make_app(service: Service) -> FastAPI:
    """The app that answers by a service, which starts and ends with it."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.close()

    app = FastAPI(title="Umbel", version=version("umbel"), lifespan=lifespan, redoc_url=None)
    app.state.service = service
    install(app)
    for router in (about_router, completions_router):
        app.include_router(router(service))
    app.add_middleware(Contained)
    app.add_middleware(RequireKey, keys=service.settings.keys)  # the last one added is the first one asked
    return app
