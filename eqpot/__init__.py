"""eqpot: from reference quantum-mechanical data to an equivariant interatomic potential and MD."""

__version__ = "0.1.0"
