"""Exponential moving average of weights."""

from eqpot.training.averages import ExponentialMovingAverage

__all__ = ["ExponentialMovingAverage"]
