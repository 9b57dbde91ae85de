"""What of a potential is compiled, and what calls it.

:mod:`~eqpot.kernels.whole` is all at once. On the CPU a larger structure is computed in chunks of
atoms by several threads: :mod:`~eqpot.kernels.layers` says what a layer does with a chunk,
:mod:`~eqpot.kernels.splitting` cuts it in two, :mod:`~eqpot.kernels.compiling` makes machine code
of it and :mod:`~eqpot.kernels.packaging` a file, :mod:`~eqpot.kernels.code` calls it, and
:mod:`~eqpot.kernels.sweep` goes over the atoms.
"""
