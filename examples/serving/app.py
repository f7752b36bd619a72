"""A saved model behind HTTP: POST rows to /score and get their scores, p-values and labels.

pip install 'flowdetect-ood[serve]'
FLOWDETECT_MODEL=model.fd uvicorn --app-dir examples/serving --factory app:make_app
"""

import json
import os

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from fastapi.concurrency import run_in_threadpool

from flowdetect import Scorer

MOST_BYTES, MOST_ROWS = 2**24, 10_000  # of one request


def make_app(path=None):
    """Load the model once, and answer with it."""
    app, scorer = FastAPI(), Scorer(path or os.environ["FLOWDETECT_MODEL"])

    @app.get("/health")
    def health():
        return {"outputs": scorer.outputs}

    @app.post("/score")
    async def score(request: Request):
        body = b""
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                raise HTTPException(413, f"A request must have at most {MOST_BYTES:,} bytes; send fewer rows.")
        try:
            answers = await run_in_threadpool(scorer, read(body))
        except (TypeError, ValueError) as error:  # what the model refuses, it says why
            raise HTTPException(422, str(error)) from error
        return {name: answers[name].tolist() for name in scorer.outputs}

    return app


def read(body):
    """Read {"rows": [[...], ...]} or {"columns": {"name": [...], ...}} as what a scorer takes."""
    try:
        sent = json.loads(body)
        named = sent.get("columns")
        whole = np.array(sent["rows"] if named is None else list(named.values()), dtype=np.float64)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            'The body must be JSON, {"rows": [[1.5, 2.0], ...]} or {"columns": {"height": [1.5, ...], ...}}, with '
            f"numbers alone and as many in each row, or in each column; got something else ({error})."
        ) from error
    n_rows = len(whole) if named is None else whole.shape[-1]
    if whole.ndim < 2 or not 0 < n_rows <= MOST_ROWS:
        raise ValueError(f"A request must have 1 to {MOST_ROWS:,} rows, got an array of shape {whole.shape}.")
    return whole if named is None else dict(zip(named, whole, strict=True))
