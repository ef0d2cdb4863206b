#!/usr/bin/env bash
# One virtual environment a peer, in .bench/<peer>, all with the same PyTorch.
# AutoEmulate comes without its dependencies: some of them pull another PyTorch, several GB of CUDA
# packages and JAX; benchmarks/autoemulate.txt names what it imports. NumPyro and the
# solvers of differential equations need no PyTorch.
set -euo pipefail
cd "$(dirname "$0")/.."

python="${PYTHON:-.venv/bin/python}"
torch="torch==2.13.0"

make_environment() { # name, pip arguments...
    local name="$1"
    shift
    if [ -e ".bench/$name/.installed" ]; then
        echo "$name: already there"
        return
    fi
    echo "$name: installing into .bench/$name"
    "$python" -m venv ".bench/$name"
    ".bench/$name/bin/python" -m pip install --quiet --disable-pip-version-check "$torch"
    ".bench/$name/bin/python" -m pip install --quiet --disable-pip-version-check "$torch" "$@"
}

finish() { # name, module to import
    ".bench/$1/bin/python" -c "import $2"
    touch ".bench/$1/.installed"
}

mkdir -p .bench
make_environment smt -r benchmarks/smt.txt
finish smt smt
make_environment botorch -r benchmarks/botorch.txt
finish botorch botorch
make_environment autoemulate -r benchmarks/autoemulate.txt
.bench/autoemulate/bin/python -m pip install --quiet --disable-pip-version-check \
    --no-deps autoemulate==2.1.2
finish autoemulate autoemulate
make_environment ax -r benchmarks/ax.txt
finish ax ax
# HEBO asks for versions among which pip finds no way; these work together.
make_environment hebo --no-deps -r benchmarks/hebo.txt
finish hebo hebo.optimizers.hebo
make_environment pyro -r benchmarks/pyro.txt
finish pyro pyro
for name in numpyro exponax jax-cfd py-pde devito; do # without PyTorch
    if [ ! -e ".bench/$name/.installed" ]; then
        echo "$name: installing into .bench/$name"
        "$python" -m venv ".bench/$name"
        ".bench/$name/bin/python" -m pip install --quiet --disable-pip-version-check \
            -r "benchmarks/$name.txt"
    fi
done
finish numpyro numpyro
finish exponax exponax
finish jax-cfd jax_cfd
finish py-pde pde
finish devito devito
make_environment deepinv -r benchmarks/deepinv.txt
echo "$PWD/src" > "$(echo .bench/deepinv/lib/python3.*/site-packages)/understudy-src.pth"
finish deepinv ptwt # deepinv itself needs what peers/imaging_deepinv.py defines first
make_environment tensorly-torch -r benchmarks/tensorly-torch.txt
finish tensorly-torch tltorch
# Servers of models: they read this checkout's models with this checkout's code.
for name in mlflow bentoml; do
    make_environment "$name" -r "benchmarks/$name.txt"
    echo "$PWD/src" > "$(echo .bench/$name/lib/python3.*/site-packages)/understudy-src.pth"
    finish "$name" "$name"
done
make_environment pfns pfns==0.4.2 tabpfn==9.2.0
finish pfns tabpfn
make_environment neuraloperator neuraloperator==2.0.0 hypothesis scipy pandas
finish neuraloperator neuralop
# What PhysicsNeMo's FNO imports; all that it asks for would bring CUDA.
if [ ! -e .bench/physicsnemo/.installed ]; then
    make_environment physicsnemo --no-deps nvidia-physicsnemo==2.2.2
    .bench/physicsnemo/bin/python -m pip install --quiet --disable-pip-version-check "$torch" \
        -r benchmarks/physicsnemo.txt
fi
finish physicsnemo torch
