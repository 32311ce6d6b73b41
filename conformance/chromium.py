"""The runner in a real browser: `python -m conformance.chromium` opens a page that makes each call, with gRPC-Web."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from conformance.browser import hosted, opened_page
from conformance.clients import WEB_PROGRAMS

SERVER_KEY = "--ignore-certificate-errors-spki-list=aGxHGFO9b1L+7iq95ngjd/dA/wXImcIrop3aFFSA9Qk="
"""SHA-256 of the public key in tls/localhost.pem. Chromium takes no authority from a file; so it trusts that key alone:
openssl x509 -pubkey -noout -in localhost.pem | openssl pkey -pubin -outform der | openssl dgst -sha256 -binary | base64"""
PATIENCE_S = 60.0
"""Until the page is there; reached by a fault alone."""


async def run() -> None:
    """Hands each line to the page, and on what that answers. The page is of another origin than Envoy, as pages are."""
    with TemporaryDirectory() as folder:
        async with hosted(WEB_PROGRAMS) as origin, opened_page(f"{origin}/index.html", Path(folder), SERVER_KEY) as tab:
            await tab.until("typeof perform == 'function'", patience_s=PATIENCE_S)
            while line := await asyncio.to_thread(sys.stdin.readline):
                # One line of JSON is an expression of JavaScript.
                sys.stdout.write(f"{json.dumps(await tab.value(f'perform({line})'))}\n")
                sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(run())
