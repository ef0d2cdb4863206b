"""Surrogates and operators behind HTTP: `understudy serve`, and its clients in Python.

`understudy.serve.server.serve`
    Serve ``.us`` files until a signal; needs the extra ``serve``.
`understudy.serve.client.connect`
    A served surrogate as a `Surrogate`; needs nothing more than the library.
`understudy.serve.remote_operator.connect_operator`
    A served operator as a `Stepper` or an `Operator`; needs nothing more either.
"""
