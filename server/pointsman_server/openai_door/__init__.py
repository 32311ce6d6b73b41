"""A door for those who have an OpenAI client: its chat completions over HTTP, in front of the same router as gRPC's.

    listener   sockets and connections
    door       the three resources: each reads, calls the router, writes
    request    JSON of OpenAI's to the request that gRPC takes, which is then validated and converted as if it came there
    answer     events of a completion to OpenAI's objects
    refusal    a failed call to an HTTP status and OpenAI's error object

docs/openai.md is the reader's version.
"""
