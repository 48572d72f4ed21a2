"""Tollkeeper inside an application of your own: its API below /llm, yours beside it.

    TOLLKEEPER_CONFIG=config.yaml uvicorn examples.mounted:app

The SDKs' base URL is then http://HOST:PORT/llm/v1. One process is one worker and its control: run
one per journal directory. The application's lifespan has to be Tollkeeper's, or to enter it.
"""

import os

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Mount, Route

from proxy.app import Tollkeeper, create_app


async def hello(_request: Request) -> JSONResponse:
    return JSONResponse({"hello": "world"})


def application(tollkeeper: Tollkeeper) -> Starlette:
    routes = [Route("/hello", hello), Mount("/llm", tollkeeper)]
    return Starlette(routes=routes, lifespan=tollkeeper.lifespan)


if "TOLLKEEPER_CONFIG" in os.environ:
    app = application(create_app(os.environ["TOLLKEEPER_CONFIG"]))
