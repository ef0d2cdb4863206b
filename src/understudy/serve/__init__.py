"""Surrogates behind HTTP: `understudy serve`, and `understudy.connect` for its clients.

`understudy.serve.server.serve`
    Serve ``.us`` files until a signal; needs the extra ``serve``.
`understudy.serve.client.connect`
    A served surrogate as a `Surrogate`; needs nothing more than the library.
"""
