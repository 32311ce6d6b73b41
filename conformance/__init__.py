"""One conformance suite for the clients of every language: what each must send, see and report, against the real server.

`scenarios.json` says what happens in no language at all: the request as proto3 JSON, what the providers do, and what the
caller must get. Each language has a small runner on its own client; it takes calls as lines of JSON and answers with
what it saw. A page in a browser and plain HTTP have one too, and call through a real Envoy. Everything is judged here, in
one place, so that no language can be lenient with itself.
"""
