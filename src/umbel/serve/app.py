"""The app: routers over one service, behind the check of keys and the catch of what no handler foresaw."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from importlib.metadata import version

from fastapi import FastAPI

from umbel.serve.about import about_router
from umbel.serve.auth import RequireKey
from umbel.serve.batches.office import Office
from umbel.serve.batches.routes import batches_router, files_router
from umbel.serve.chat import chat_router
from umbel.serve.completions import completions_router
from umbel.serve.dashboard.router import dashboard_router, sign_in_page
from umbel.serve.errors import Contained, install
from umbel.serve.metrics import metrics_router
from umbel.serve.protocol import HeaderLimit
from umbel.serve.responses import responses_router
from umbel.serve.service import Service
from umbel.serve.tokens import tokens_router
from umbel.serve.vectors import vectors_router

ROUTERS = (
    about_router,
    completions_router,
    chat_router,
    responses_router,
    vectors_router,
    tokens_router,
    metrics_router,
)


def make_app(service: Service) -> FastAPI:
    """The app that answers by a service, which starts and ends with it."""

    store = service.settings.store
    office = None if store is None else Office.open(service, store)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        if office is not None:
            office.start()
        try:
            yield
        finally:
            if office is not None:
                await asyncio.to_thread(office.close)
            await service.close()

    app = FastAPI(title="Umbel", version=version("umbel"), lifespan=lifespan, redoc_url=None)
    app.state.service = service
    install(app)
    for router in ROUTERS:
        app.include_router(router(service))
    for of_office in (files_router, batches_router) if office is not None else ():
        app.include_router(of_office(office))
    app.include_router(dashboard_router(service, office))
    app.add_middleware(Contained)
    app.add_middleware(HeaderLimit, limits=service.settings.limits)
    sign_in = partial(sign_in_page, service.settings)
    app.add_middleware(RequireKey, keys=service.settings.keys, sign_in=sign_in)  # added last, asked first
    return app
